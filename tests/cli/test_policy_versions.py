"""Versions of the policy from the command line: apply, history, export, rollback, and versions to look at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from authz.cli.connection import connect
from authz.domain.entities import Course, CourseState, Membership, Resource
from authz.domain.ids import course_scope
from authz.domain.mutations import Mutation, Operation
from authz.policy.invariants import INVARIANTS_FILE
from authz.policy.load import POLICY_FILE, read_folder
from tests.cli.commands import run
from tests.policies import CLOSED, SAYS, SHIPPED, with_rows
from tests.store.directory import user


def folder_of(files: dict[str, str], folder: Path) -> Path:
    folder.mkdir()
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_a_folder_is_applied_listed_exported_and_taken_back(tmp_path: Path, here: tuple[str, str]) -> None:
    mine = folder_of(CLOSED, tmp_path / "mine")
    applied = run("policy", "apply", mine, "--reason", "close", "--author", "ada", *here)
    assert (applied.returncode, applied.stdout.splitlines()[0]) == (0, "version 2 is active")
    again = run("policy", "apply", mine, *here)
    assert again.stdout == "unchanged: version 2 is active and has the same files\n"
    listed = [json.loads(line) for line in run("policy", "history", "--json", *here).stdout.splitlines()]
    assert [(row["number"], row["active"], row["author"], row["reason"]) for row in listed] == [
        (2, True, "ada", "close"),
        (1, False, "authz", "the policy that the release ships"),
    ]
    assert "close" in run("policy", "history", *here).stdout
    shown = run("policy", "show", "--version", "2", "--type", "material", "--json", *here).stdout.splitlines()
    closing = [rule for rule in map(json.loads, shown) if rule["effect"] == "deny" and not rule["condition"]]
    assert [(rule["role"], rule["action"]) for rule in closing] == [("*", "read")]
    assert run("policy", "validate", "--version", "active", *here).returncode == 0
    assert run("policy", "export", tmp_path / "first", "--version", "1", *here).returncode == 0
    assert read_folder(tmp_path / "first") == SHIPPED
    back = run("policy", "rollback", "1", "--reason", "too strict", "--json", *here)
    outcome = json.loads(back.stdout)
    assert (outcome["changed"], outcome["active"]["number"], outcome["active"]["reason"]) == (
        True,
        3,
        "too strict",
    )
    assert run("policy", "export", tmp_path / "now", *here).returncode == 0
    assert read_folder(tmp_path / "now") == SHIPPED


def test_an_exported_folder_does_not_undo_what_another_admin_applied_meanwhile(
    tmp_path: Path, here: tuple[str, str]
) -> None:
    ada, ben = tmp_path / "ada", tmp_path / "ben"
    run("policy", "apply", folder_of(SHIPPED, tmp_path / "shipped"), *here)
    for folder in (ada, ben):
        assert run("policy", "export", folder, *here).returncode == 0
    for folder, row in ((ada, "p, *, *, material, read, , deny"), (ben, "p, *, *, notebook, export, , deny")):
        with (folder / POLICY_FILE).open("a") as file:
            file.write(f"{row}\n")
        for name in read_folder(folder):
            if name.startswith("tests/"):
                (folder / name).unlink()
    assert run("policy", "apply", ada, *here).returncode == 0
    refused = run("policy", "apply", ben, *here)
    assert refused.returncode == 2
    assert f"`{ben}` was exported from version 1, and version 2 is active" in refused.stderr
    assert "`--expected-active 2`" in refused.stderr
    assert "version 2 is active" in run("policy", "apply", ada, *here).stdout
    with (ada / POLICY_FILE).open("a") as file:
        file.write("p, *, *, message, delete, , deny\n")
    assert "version 3 is active" in run("policy", "apply", ada, *here).stdout
    replaced = run("policy", "apply", ben, "--expected-active", "3", *here)
    assert "version 4 is active" in replaced.stdout


def test_a_folder_that_cannot_be_written_to_is_applied(tmp_path: Path, here: tuple[str, str]) -> None:
    folder = folder_of(SHIPPED, tmp_path / "mine")
    (folder / ".exported-from").symlink_to("/proc/version")  # which not even root may change
    applied = run("policy", "apply", folder, "--expected-active", "1", *here)
    assert applied.returncode == 0
    assert "version 1 is active" in applied.stdout
    assert f"note: `{folder}` does not state this version: " in applied.stderr


def test_every_fault_of_a_folder_is_told_with_its_place(tmp_path: Path, here: tuple[str, str]) -> None:
    rows = "".join(f"p, nobody_{number}, *, notebook, read, own, allow\n" for number in range(300))
    mine = folder_of(SHIPPED | {POLICY_FILE: SHIPPED[POLICY_FILE] + rows}, tmp_path / "mine")
    refused = run("policy", "apply", mine, *here)
    assert refused.returncode == 2
    assert "the policy has 300 faults" in refused.stderr
    assert all(f"unknown role `nobody_{number}`" in refused.stderr for number in range(300))
    history = run("policy", "history", *here, "--json").stdout.splitlines()
    assert [json.loads(line)["number"] for line in history] == [1]


def test_versions_and_folders_are_compared(tmp_path: Path, here: tuple[str, str]) -> None:
    closed, shipped = folder_of(CLOSED, tmp_path / "closed"), folder_of(SHIPPED, tmp_path / "shipped")
    assert run("policy", "apply", closed, *here).returncode == 0
    loses = "`student` loses read on material, when published & !for_ai_response\n"
    gains = "`student` gains read on material, when published & !for_ai_response\n"
    for sides, told in (
        ((shipped, closed), loses),
        (("--old", "1", "--new", "2", *here), loses),
        (("--old", "1", *here), loses),
        (("--old", "1", closed, *here), loses),
        ((closed, "--new", "1", *here), gains),
        (("--new", "1", *here), gains),
        ((shipped, *here), gains),
    ):
        found = run("policy", "diff", *sides)
        assert (found.returncode, told in found.stdout) == (1, True), sides
        assert found.stderr == ""
    data = [run("policy", "diff", *sides, "--json") for sides in ((shipped, closed), ("--old", "1", *here))]
    assert json.loads(data[0].stdout) == json.loads(data[1].stdout)
    same = run("policy", "diff", closed, *here)
    assert (same.returncode, same.stdout.startswith("no access changes")) == (0, True)


def test_a_publish_runs_the_tests_beside_the_policy(tmp_path: Path, here: tuple[str, str]) -> None:
    fails = folder_of(CLOSED | {"tests/mine.toml": SAYS % "true"}, tmp_path / "fails")
    refused = run("policy", "apply", fails, *here)
    assert refused.returncode == 2
    assert "tests/mine.toml:9:1: the test `a student changes it` fails" in refused.stderr
    (fails / "tests/mine.toml").write_text(SAYS % "false")
    applied = run("policy", "apply", fails, *here)
    assert "tests: 2 passed; no test touches " in applied.stdout
    outcome = json.loads(run("policy", "rollback", "1", "--json", *here).stdout)
    assert outcome["tests"]["passed"] > 2
    without = run("policy", "apply", folder_of(CLOSED, tmp_path / "without"), *here)
    assert "no test: write some" in without.stdout
    assert run("policy", "test", "--version", "2", *here).stdout.startswith("passed 2, failed 0\n")


def test_the_proof_of_a_version_is_read_and_checked(tmp_path: Path, here: tuple[str, str]) -> None:
    run("policy", "apply", folder_of(CLOSED, tmp_path / "mine"), *here)
    checked = run("policy", "prove", "--version", "2", "--served", *here)
    assert checked.returncode == 0
    assert checked.stdout.startswith("the certificate holds: 23 invariants")
    certificate = tmp_path / "first.json"
    assert run("policy", "prove", "--version", "1", "--certificate", certificate, *here).returncode == 0
    assert run("policy", "prove", "--version", "1", "--check", certificate, *here).returncode == 0
    other = run("policy", "prove", "--version", "2", "--check", certificate, *here)
    assert other.returncode == 2
    assert "is of another policy" in other.stderr
    assert "on the server" in run("policy", "prove", "--served", "--version", "shipped").stderr


@pytest.mark.parametrize(
    ("command", "active", "shipped"),
    [
        (("show", "--role", "*", "--type", "material", "--json"), '"effect":"deny"', ""),
        (("validate",), "valid: ", "valid: "),
        (("prove",), "proved: 23 invariants", "proved: 23 invariants"),
        (("test",), "passed 0, failed 0", "passed 89, failed 0"),
        (("copy-role", "student", "pupil"), "p, pupil, ", "p, pupil, "),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_command_about_a_policy_reads_the_active_version_unless_it_names_another(
    tmp_path: Path, here: tuple[str, str], command: tuple[str, ...], active: str, shipped: str
) -> None:
    run("policy", "apply", folder_of(CLOSED, tmp_path / "closed"), *here)
    by_default = run("policy", *command, *here)
    assert by_default.stderr == "read version 2 (active)\n"
    assert active in by_default.stdout
    assert run("policy", *command, "--version", "1", *here).stderr == "read version 1\n"
    of_release = run("policy", *command, "--version", "shipped")
    assert of_release.stderr == "read the shipped policy\n"
    assert shipped in of_release.stdout
    if command[0] in ("show", "test"):
        assert by_default.stdout != of_release.stdout


def test_what_a_release_changes_is_told_by_comparing_with_the_shipped_policy(
    tmp_path: Path, here: tuple[str, str]
) -> None:
    run("policy", "apply", folder_of(CLOSED, tmp_path / "closed"), *here)
    changes = run("policy", "diff", "--new", "shipped", *here)
    assert "`student` gains read on material" in changes.stdout
    assert run("policy", "export", tmp_path / "shipped", "--version", "shipped").returncode == 0
    assert read_folder(tmp_path / "shipped") == SHIPPED


def campus_in(url: str) -> None:
    """Maya is a student of algebra, in which one of two materials is published."""
    with connect(database=url, creates=True) as client:
        client.write(
            Mutation(Operation.CREATE, each)
            for each in (
                Course(id="algebra", state=CourseState.ACTIVE),
                Membership(subject=user("maya"), scope=course_scope("algebra"), role="student"),
                Resource(type="material", id="exam", scope=course_scope("algebra")),
                Resource(type="material", id="book", scope=course_scope("algebra"), published=True),
            )
        )


def test_a_preview_tells_who_gains_and_who_loses(tmp_path: Path, empty_sqlite_url: str) -> None:
    here = ("--database", empty_sqlite_url)
    campus_in(empty_sqlite_url)
    closed = folder_of(CLOSED, tmp_path / "closed")
    found = run("policy", "preview", closed, *here)
    assert (found.returncode, found.stderr) == (1, "")
    *_, summary, scope, _, _, row = found.stdout.splitlines()
    assert summary == "1 membership loses read on material: 1 resource"
    assert scope.startswith("1 row in 1 scope against version 1, as the directory stands at 20")
    assert "user:maya" in row
    assert "material:book" in row
    with connect(database=empty_sqlite_url) as client:
        client.write(
            [
                Mutation(
                    Operation.CREATE,
                    Membership(subject=user("omar"), scope=course_scope("algebra"), role="student"),
                )
            ]
        )
    found = run("policy", "preview", closed, *here)
    assert "2 memberships lose read on material: 2 resources, counted for each membership\n" in found.stdout
    assert run("member", "remove", "user:omar", "course:algebra", *here).returncode == 0
    *rows, last = (
        json.loads(line) for line in run("policy", "preview", closed, "--json", *here).stdout.splitlines()
    )
    assert [(each["subject"], each["scope"]) for each in rows] == [("user:maya", "course:algebra")]
    (change,) = rows[0]["changes"]
    assert (change["action"], change["type"], change["gains"], change["count"]) == (
        "read",
        "material",
        False,
        1,
    )
    assert (change["before"]["reason"], change["after"]["reason"]) == ("ROLE_GRANT", "EXPLICIT_DENY")
    assert (last["totals"]["rows"], last["totals"]["recent"]) == (1, None)
    question = ("check", "user:maya", "read", "material:book")
    assert run(*question, *here, AUTHZ_DECISION_LOG="table").returncode == 0
    told = run("policy", "preview", closed, *here).stdout.splitlines()[-1]
    assert told.startswith("of the last 1 logged decisions, since 20")
    assert told.endswith(", 1 would change")
    assert run("policy", "apply", closed, *here).returncode == 0
    same = run("policy", "preview", closed, *here)
    assert (same.returncode, same.stdout.startswith("nobody gains or loses anything")) == (0, True)
    assert run("policy", "preview", "--version", "1", *here).returncode == 1


def test_a_dropped_invariant_is_named_by_each_look_at_it(tmp_path: Path, here: tuple[str, str]) -> None:
    text = SHIPPED[INVARIANTS_FILE].replace('when = "!published"', 'when = "!published & locked"')
    narrowed = folder_of(SHIPPED | {INVARIANTS_FILE: text}, tmp_path / "narrowed")
    told = '`when` of invariant `unpublished-materials`: `"!published"` becomes `"!published & locked"`\n'
    for apply in (("apply", narrowed), ("apply", narrowed, "--validate-only")):
        refused = run("policy", *apply, *here)
        assert refused.returncode == 2
        assert "`unpublished-materials`" in refused.stderr
        assert "no longer covers every case when `!published`" in refused.stderr
    for command in (
        ("diff", narrowed),
        ("preview", narrowed),
        ("apply", narrowed, "--validate-only", "--weaken-invariants"),
        ("apply", narrowed, "--weaken-invariants"),
        ("diff", "--old", "1", "--new", "2"),
    ):
        found = run("policy", *command, *here)
        assert told in found.stdout, command
        assert found.returncode == (command[0] in ("diff", "preview")), command
    marked = [line for line in run("policy", "history", *here).stdout.splitlines() if "weakens" in line]
    assert [line.split()[:4] for line in marked] == [["2", "active,", "weakens", "invariants"]]
    back = '`when` of invariant `unpublished-materials`: `"!published & locked"` becomes `"!published"`'
    outcome = json.loads(run("policy", "rollback", "1", "--json", *here).stdout)
    assert outcome["changes"] == {"declarations": [back], "cells": []}


def test_what_one_row_does_to_many_is_counted(tmp_path: Path, here: tuple[str, str]) -> None:
    mine = folder_of(with_rows("p, student, *, *, *, , deny"), tmp_path / "mine")
    applied = run("policy", "apply", mine, *here)
    assert "notebook, session_note: lost by `student`\n" in applied.stdout
    assert "changes in all; --verbose tells each one, and when\n" in applied.stdout
    (many,) = [line for line in applied.stderr.splitlines() if "never allows" in line]
    count = int(many.removeprefix("warning: ").split()[0])
    assert f"{count} rows of `student` (default.csv:" in many
    told = run("policy", "rollback", "1", "--verbose", *here).stdout
    assert "`student` gains read on notebook, when own & !for_ai_response" in told
    verbose = run("policy", "apply", mine, "--verbose", *here).stderr
    assert sum("never allows" in line for line in verbose.splitlines()) == count > 20


def test_a_row_for_a_course_that_does_not_exist_is_warned_of(tmp_path: Path, empty_sqlite_url: str) -> None:
    campus_in(empty_sqlite_url)
    here = ("--database", empty_sqlite_url)
    mine = folder_of(with_rows("p, auditor, course:algebr, notebook, read, own, allow"), tmp_path / "mine")
    assert "there is no course" not in run("policy", "validate", mine).stdout
    found = run("policy", "validate", mine, "--with-directory", "--strict", *here)
    assert found.returncode == 1
    assert "there is no course `algebr`" in found.stdout
    applied = run("policy", "apply", mine, *here)
    assert (applied.returncode, applied.stdout.splitlines()[0]) == (0, "version 2 is active")
    assert "there is no course `algebr`" in applied.stderr


def test_a_course_policy_is_previewed_from_its_file(tmp_path: Path, empty_sqlite_url: str) -> None:
    campus_in(empty_sqlite_url)
    file = tmp_path / "algebra.csv"
    file.write_text("p, student, course:algebra, material, read, , deny\n")
    here = ("--database", empty_sqlite_url)
    found = run("policy", "preview", file, "--course", "algebra", *here)
    assert found.returncode == 1
    assert found.stdout.startswith("1 membership loses read on material: 1 resource\n")


def test_validating_only_changes_nothing(tmp_path: Path, here: tuple[str, str]) -> None:
    mine = folder_of(CLOSED, tmp_path / "mine")
    tried = run("policy", "apply", mine, "--validate-only", *here)
    assert tried.stdout.startswith("valid: it differs from version 1, which is active\n")
    assert len(run("policy", "history", "--json", *here).stdout.splitlines()) == 1


def test_a_change_to_a_version_that_is_not_active_is_refused(tmp_path: Path, here: tuple[str, str]) -> None:
    mine = folder_of(CLOSED, tmp_path / "mine")
    refused = run("policy", "apply", mine, "--expected-active", "4", *here)
    assert refused.returncode == 2
    assert "the active version is 1, not 4" in refused.stderr
    refused = run("policy", "apply", mine, "--expected-active", "0", *here)
    assert "the active version is 1, not none" in refused.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("policy", "apply", "/no/such/folder"), "there is no folder `/no/such/folder`"),
        (("policy", "apply", "policies/default.csv"), "is a file; name the folder of the policy"),
        (("policy", "diff", "draft:wider"), "is no folder; name a version of the server by an option"),
        (("policy", "prove", "3"), "is no folder; name a version of the server by an option"),
        (("policy", "show", "--version", "latest"), "`latest` is no version"),
        (("policy", "show", "policies", "--version", "1"), "not both"),
        (("policy", "diff"), "name two folders"),
        (("policy", "diff", "policies", "policies", "--new", "1"), "compare two policies"),
        (("policy", "diff", "--old", "first"), "`first` is no version"),
        (("policy", "diff", "--old", "", "--new", "1"), "--old is empty"),
        (("policy", "prove", "--version", ""), "--version is empty"),
        (("policy", "shadow", "start", "active"), "`active` is no candidate; name a draft"),
        (("policy", "preview"), "name a policy folder, or a version"),
        (("policy", "preview", "policies", "--version", "1"), "name a policy folder, or a version"),
        (("policy", "preview", "/no/such/folder"), "there is no folder `/no/such/folder`"),
        (("policy", "rollback", "0"), "greater than or equal to 1"),
    ],
)
def test_bad_arguments_are_told(arguments: tuple[str, ...], says: str) -> None:
    failed = run(*arguments)
    assert failed.returncode == 2
    assert says in failed.stderr


def test_an_export_overwrites_nothing(tmp_path: Path, empty_sqlite_url: str) -> None:
    mine = folder_of(CLOSED, tmp_path / "mine")
    refused = run("policy", "export", mine, "--database", empty_sqlite_url)
    assert refused.returncode == 2
    assert "is not empty" in refused.stderr
    assert read_folder(mine) == CLOSED


def test_a_file_that_is_not_text_is_named(tmp_path: Path, empty_sqlite_url: str) -> None:
    mine = folder_of(CLOSED, tmp_path / "mine")
    (mine / "logo.png").write_bytes(b"\x89PNG\xff")
    (mine / ".git").mkdir()
    (mine / ".git" / "index").write_bytes(b"\xff\xfe")
    refused = run("policy", "apply", mine, "--database", empty_sqlite_url)
    assert refused.returncode == 2
    assert "logo.png:1:1: is not UTF-8" in refused.stderr
