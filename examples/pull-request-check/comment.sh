#!/usr/bin/env bash
# Prints a comment on a change of a policy folder, in Markdown: its faults and warnings, what it decides otherwise
# than the active version, and who gains and who loses. Reads only. Exit code: 0 it can be applied, 2 it cannot, or
# not without `--weaken-invariants`.
#
#   AUTHZ_ADDRESS=authz.example.org:50051 comment.sh my-policy > comment.md
#
# The caller needs the permission `read_policy`. Options after the folder, such as `--tls-ca-file ca.pem`, go to each
# command of authz.
set -u
folder=${1:?usage: comment.sh FOLDER [OPTION...]}
shift
max_characters=20000 # of a section; GitHub takes 65,536 in a comment

section() {
    local title=$1 code=0
    shift
    output=$("$@" 2>&1) || code=$?
    printf '### %s\n\n~~~\n%s\n' "$title" "${output:0:max_characters}"
    [ ${#output} -le $max_characters ] || printf '... and more: run `%s`\n' "$*"
    printf '~~~\n\n'
    # 1 says that something was found, such as a warning or a person who gains; more is a failure.
    [ "$code" -le 1 ] || exit 2
}

section "Faults and warnings" authz policy validate "$folder" --with-directory "$@"
# Two warnings are about what `apply` refuses: weaker invariants, and a platform without an administrator.
refused=$(grep -cE 'it is (published only with|refused while)' <<< "$output")
section "What it decides otherwise" authz policy diff "$folder" "$@"
section "Whom it concerns" authz policy preview "$folder" "$@"
[ "$refused" -eq 0 ] || {
    printf '`authz policy apply` refuses this as it is: see the warnings.\n'
    exit 2
}
