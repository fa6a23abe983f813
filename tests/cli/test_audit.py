"""`authz audit`, against a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from authz.audit.table import TableSink
from tests.cli.commands import run
from tests.service import in_process
from tests.serving import served

HISTORY = (
    "course create alg --state active",
    "member add user:maya course:alg student",
    "member suspend user:maya course:alg --reason report-17",
    "member remove user:maya course:alg --role student",
)
ASKED = (("user:maya", 0), ("user:omar", 1))
"""Of whom `read` of the course is asked, and the exit code."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server in which a student was suspended and removed."""
    url = f"sqlite:///{tmp_path_factory.mktemp('audit')}/authz.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TableSink, "gather_s", 0.0)
        with served(url, decision_log="table") as found:
            for number, command in enumerate(HISTORY):
                done = run(*command.split(), "--address", found)
                assert done.returncode == 0, done.stderr
                for subject, code in ASKED if number == 1 else ():
                    asked = run("check", subject, "read", "course:alg", "--address", found)
                    assert asked.returncode == code
            yield found


def test_who_suspended_her_and_why_is_printed(address: str) -> None:
    printed = run("audit", "changes", "--subject", "user:maya", "--address", address)
    assert printed.returncode == 0, printed.stderr
    heading, *rows = printed.stdout.splitlines()
    assert heading.split() == ["time", "revision", "who", "did", "record", "changed", "reason"]
    assert [row.split()[3] for row in rows] == ["deleted", "changed", "created"]
    assert "status ACTIVE > SUSPENDED" in rows[1]
    assert rows[1].endswith("report-17")
    assert "unauthenticated" in rows[1]
    assert "membership user:maya student in course:alg" in rows[1]


def test_a_retention_period_is_printed_with_the_one_before_also_the_first_that_is_set(address: str) -> None:
    for days in ("730", "forever"):
        done = run("privacy", "retention", "set", "decisions", days, "--reason", "x", "--address", address)
        assert done.returncode == 0, done.stderr
    printed = run("audit", "changes", "--kind", "retention_rule", "--address", address).stdout
    _, last, first = printed.splitlines()
    assert "changed  retention of decisions  days 365 > 730" in first
    assert "changed  retention of decisions  days 730 > -" in last


def test_json_has_a_change_a_line_with_both_records(address: str) -> None:
    printed = run(
        "audit", "changes", "--scope", "course:alg", "--oldest-first", "--json", "--address", address
    )
    created, enrolled, suspended, removed = map(json.loads, printed.stdout.splitlines())
    assert (created["operation"], created["key"], created["before"]) == ("CREATE", "course:alg", None)
    assert suspended["before"] == enrolled["after"]
    assert removed["before"] == suspended["after"]
    assert removed["after"] is None


def test_what_is_printed_is_bounded(address: str) -> None:
    one = run("audit", "changes", "--limit", "1", "--address", address).stdout.splitlines()
    assert len(one) == 2
    everything = run("audit", "changes", "--limit", "0", "--address", address).stdout.splitlines()
    assert len(everything) > len(HISTORY)


def test_a_time_that_cannot_be_read_is_refused(address: str) -> None:
    failed = run("audit", "changes", "--since", "yesterday", "--address", address)
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr.startswith("error: --since `yesterday` is not a time")


@in_process
def test_who_was_let_in_is_printed(address: str) -> None:
    printed = run("audit", "decisions", "--resource", "course:alg", "--address", address)
    assert printed.returncode == 0, printed.stderr
    heading, *rows = printed.stdout.splitlines()
    assert heading.split() == ["time", "who", "asked", "subject", "action", "resource", "answer", "reason"]
    assert [row.split()[1:] for row in rows if " Check " in row] == [
        ["unauthenticated", "Check", "user:omar", "read", "course:alg", "denied", "NOT_A_MEMBER"],
        ["unauthenticated", "Check", "user:maya", "read", "course:alg", "allowed", "ROLE_GRANT"],
    ]


@in_process
def test_json_has_an_entry_a_line(address: str) -> None:
    options = ("--resource", "course:alg", "--allowed", "--action", "read", "--json", "--address", address)
    (entry,) = map(json.loads, run("audit", "decisions", *options).stdout.splitlines())
    assert (entry["subject"], entry["allowed"], entry["role"]) == ("user:maya", True, "student")


def test_a_server_that_logs_nothing_in_its_database_is_told_apart_from_one_that_was_asked_nothing(
    sqlite_url: str,
) -> None:
    printed = run("audit", "decisions", "--database", sqlite_url)
    assert printed.returncode == 0
    assert "set AUTHZ_DECISION_LOG=table" in printed.stderr


def test_the_server_of_one_command_logs_there_if_it_is_told_to(sqlite_url: str) -> None:
    options = ("--database", sqlite_url)
    asked = run("check", "user:maya", "read", "course:c", *options, AUTHZ_DECISION_LOG="table")
    assert asked.returncode == 1
    printed = run("audit", "decisions", "--subject", "user:maya", *options)
    assert "Check  user:maya" in printed.stdout


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("audit decisions --action raed", "error: unknown action `raed`; did you mean `read`?"),
        (
            "audit decisions --action join --resource material:m",
            "error: unknown action `join` on material; known are",
        ),
        ("audit decisions --resource materiel:m", "error: unknown resource type `materiel`; did you mean"),
        ("audit changes --resource materiel:m", "error: unknown resource type `materiel`; did you mean"),
        ("memberships --role studnt", "error: unknown role `studnt`; did you mean `student`?"),
        (
            "memberships --role host --scope course:alg",
            "error: role `host` belongs to a session, not to a course; known are",
        ),
        ("resources --type materiel", "error: unknown resource type `materiel`; did you mean `material`?"),
        ("shares --resource materiel:m", "error: unknown resource type `materiel`; did you mean `material`?"),
        ("policy history --course nosuch", "error: course:nosuch does not exist, so it has no policy"),
        ("policy draft list --course nosuch", "error: course:nosuch does not exist, so it has no policy"),
    ],
)
def test_a_word_that_the_policy_does_not_know_is_refused_where_nothing_is_found(
    address: str, command: str, told: str
) -> None:
    for _ in range(2):  # the decision log has the first one
        refused = run(*command.split(), "--address", address)
        assert (refused.returncode, told in refused.stderr) == (2, True), refused.stderr


def test_a_known_action_of_which_nothing_is_logged_is_no_error(address: str) -> None:
    empty = run("audit", "decisions", "--action", "moderate", "--address", address)
    assert (empty.returncode, len(empty.stdout.splitlines())) == (0, 1)


def test_an_id_that_no_record_has_is_noted_where_nothing_is_found(address: str) -> None:
    for command, told in (
        ("audit changes --scope course:al", "note: there is no course:al; compare the id\n"),
        ("audit changes --subject user:omar", "note: no record names user:omar; compare the id\n"),
        ("audit changes --by service:nosuch", "note: no record names service:nosuch; compare the id\n"),
        ("audit decisions --by user:omar", "note: no record names user:omar; compare the id\n"),
        ("audit changes --by unauthenticated --resource material:m", ""),
        ("memberships --scope session:s", "note: there is no session:s; compare the id\n"),
        ("sessions --course al", "note: there is no course:al; compare the id\n"),
        ("accounts --subject user:omar", "note: no record names user:omar; compare the id\n"),
        ("sessions --course alg", ""),
        ("audit changes --resource material:m", ""),
        ("memberships --role teacher", ""),
    ):
        for form in ((), ("--json",)):
            empty = run(*command.split(), *form, "--address", address)
            notes = "".join(line for line in empty.stderr.splitlines(True) if line.startswith("note: "))
            assert (empty.returncode, len(empty.stdout.splitlines()), notes) == (0, not form, told), command
