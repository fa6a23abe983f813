"""`authz policy`: validate a policy folder, or a version on a server, and show its rules."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from authz.cli import ERROR_EXIT_CODE
from authz.cli.command import Context, on_server
from authz.cli.options import Folder, OnlyRole, OnlyType, PolicyCourse, Verbose, Version
from authz.cli.output import FOUND_EXIT_CODE, print_json
from authz.cli.policy_report import counted, print_warnings
from authz.cli.policy_source import SHOWN_DIGEST, PolicyFiles, load_in_course, read_policy, validated
from authz.domain.errors import PolicyError, PolicyWarning
from authz.domain.vocabulary import MAX_RANK, suggest

if TYPE_CHECKING:
    from authz.domain.decisions import Rule
    from authz.policy.compile import CompiledPolicy

app = typer.Typer(help="Validate, compare, prove, test, publish and revert policies.", no_args_is_help=True)


@on_server(app)
def validate(
    context: Context,
    folder: Folder = None,
    course: PolicyCourse = None,
    version: Version = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on warnings, too.")] = False,
    with_directory: Annotated[
        bool, typer.Option("--with-directory", help="Also hold it against the directory of the server.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """List every fault and warning. Exit code: 0 valid, 1 with warnings and --strict, 2 with faults.

    With --course, those of the policy of a course: of a file, or of a version on the server.
    """
    source: PolicyFiles | None = None
    try:
        source = read_policy(context, folder, version, course)
        numbers, warnings = _linted(context, source, course)
        if with_directory:
            warnings = validated(context.client, source.files, course)
    except PolicyError as error:
        if not context.as_json:
            raise
        digest = None if source is None else source.digest  # None: a file of it is no text
        print_json({"valid": False, "digest": digest, "faults": error.faults, "warnings": []})
        raise typer.Exit(ERROR_EXIT_CODE) from None
    if context.as_json:
        print_json({"valid": True, "digest": source.digest, "faults": [], "warnings": warnings})
    else:
        print_warnings(warnings, verbose=verbose, file=sys.stdout)
        counts = [counted(number, noun) for noun, number in (*numbers.items(), ("warning", len(warnings)))]
        print(f"valid: {', '.join(counts)}; digest {source.digest[:SHOWN_DIGEST]}")
    if strict and warnings:
        raise typer.Exit(FOUND_EXIT_CODE)


def _linted(
    context: Context, source: PolicyFiles, course: str | None
) -> tuple[dict[str, int], list[PolicyWarning]]:
    """How many of each noun a policy has, and its warnings. Raises `PolicyError` with every fault."""
    from authz.policy.lint import lint, lint_course
    from authz.policy.versions import load_files

    if course:
        found = load_in_course(context, course, source)
        warnings = [*lint_course(found.policy, found.platform)]
        return {"rule": len(found.own)}, warnings
    policy, invariants, tests = load_files(source.files)
    names = policy.vocabulary
    numbers = {
        "rule": len(policy.rules),
        "role": len(names.roles),
        "type": len(names.types),
        "invariant": len(invariants),
        "test": sum(len(file.cases) for file in tests),
    }
    return numbers, list(lint(policy))


@app.command("format")
def format_file(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A CSV file of a spreadsheet or of another tool.")
    ],
    write: Annotated[bool, typer.Option("--write", help="Change the file, and print nothing.")] = False,
) -> None:
    """Print a policy file as this project writes it: the same rows and comments, with commas, unpadded."""
    from authz.policy.format import format_policy

    before = file.read_bytes()
    if not before.strip():
        raise ValueError(
            f"`{file}` is empty; if a shell has emptied it for `> {file}`, put it back, and use `--write`"
        )
    formatted = format_policy(before, file=file.name)
    if write:
        file.write_bytes(formatted.encode())
    else:
        print(formatted, end="")


@on_server(app)
def show(
    context: Context,
    folder: Folder = None,
    course: PolicyCourse = None,
    version: Version = None,
    role: OnlyRole = "",
    type_name: OnlyType = "",
) -> None:
    """Show the rules; with --course, those that the course has of its own.

    With --role and --type, those that apply: also those that the role inherits, and those of every role or
    type.
    """
    from authz.policy.load import compile_files

    source = read_policy(context, folder, version, course)
    if course:
        found = load_in_course(context, course, source)
        policy, rules = found.policy, found.own
    else:
        policy = compile_files(source.files)
        rules = policy.rules
    _require_known("role", role, policy.vocabulary.roles)
    _require_known("type", type_name, policy.vocabulary.types)
    columns = ("role", "scope", "type", "action", "condition", "effect", "source")
    shown = _about(rules, policy, role, type_name)
    context.show(columns, shown, lambda rule: [getattr(rule, name) for name in columns])


def _about(rules: Iterable[Rule], policy: CompiledPolicy, role: str, type_name: str) -> list[Rule]:
    """The rules that apply to a role and a type, each "" for all."""
    from authz.policy.rules import ANY

    roles = {ANY, *policy.inherited.get(role, ())}
    declared = policy.vocabulary.types.get(type_name)
    actions = {ANY, *(declared.actions if declared else ())}
    return [
        rule
        for rule in rules
        if (not role or rule.role in roles)
        and (not type_name or (rule.type in (type_name, ANY) and rule.action in actions))
    ]


def _require_known(what: str, name: str, known: Collection[str]) -> None:
    if name not in ("", "*", *known):
        raise ValueError(f"unknown {what} `{name}`; {suggest(name, known)}")


@on_server(app, "copy-role", prints_json=False)
def copy(
    context: Context,
    original: Annotated[str, typer.Argument(metavar="ROLE", help="The role to copy.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="The new role.")],
    folder: Folder = None,
    version: Version = None,
    rank: Annotated[
        int | None, typer.Option(min=0, max=MAX_RANK, help="Its rank. Default: that of the original.")
    ] = None,
) -> None:
    """Print the rows of a role that starts as a copy of another, to append to default.csv."""
    from authz.policy.copy_role import copy_role, invariants_with
    from authz.policy.invariants import INVARIANTS_FILE
    from authz.policy.load import compile_files

    files = read_policy(context, folder, version).files
    print(copy_role(compile_files(files), original, name, rank), end="")
    found = invariants_with(files.get(INVARIANTS_FILE, ""), original)
    if found:
        names = ", ".join(f"`{each}`" for each in found)
        text = f"{INVARIANTS_FILE} lists `{original}` in the `roles` of {names}; add `{name}` there"
        print(f"note: {text}, or they do not cover it", file=sys.stderr)
