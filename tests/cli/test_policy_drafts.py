"""Drafts of the policy from the command line."""

from __future__ import annotations

import json
from pathlib import Path

from authz.policy.load import read_folder
from tests.cli.commands import run
from tests.policies import SAYS, SHIPPED


def test_a_draft_is_edited_looked_at_tested_and_published(tmp_path: Path, here: tuple[str, str]) -> None:
    created = run("policy", "draft", "create", "wider", "--author", "ada", *here)
    assert created.stdout == "draft `wider` is a copy of version 1\n"
    set_cell = ("policy", "edit", "wider", "--set", "teaching_assistant", "material", "publish", "always")
    gains = "`teaching_assistant` gains publish on material, when !for_ai_response & !course_archived\n"
    assert run(*set_cell, *here).stdout.startswith(gains)
    found = run("policy", "diff", "--new", "draft:wider", *here)
    assert (found.returncode, found.stdout) == (1, gains)
    assert run("policy", "prove", "--version", "draft:wider", *here).stdout.startswith(
        "proved: 23 invariants"
    )
    tested = run("policy", "test", "--version", "draft:wider", *here)
    assert (tested.returncode, "an assistant does not publish" in tested.stdout) == (1, True)
    refused = run("policy", "publish", "draft:wider", *here)
    assert (refused.returncode, "an assistant does not publish" in refused.stderr) == (2, True)
    (tmp_path / "mine.toml").write_text(SAYS % "false")
    put = ("--put", f"tests/mine.toml={tmp_path / 'mine.toml'}", "--delete-file", "tests/course.toml")
    edited = json.loads(run("policy", "edit", "wider", *put, "--json", *here).stdout)
    assert [cell["role"] for cell in edited["changes"]["cells"]] == ["teaching_assistant"]
    (row,) = map(json.loads, run("policy", "draft", "list", "--json", *here).stdout.splitlines())
    assert row.pop("edited_at").endswith("Z")
    assert edited["etag"] in run("policy", "draft", "list", *here).stdout.splitlines()[1].split()
    assert row == {
        "id": "wider",
        "etag": edited["etag"],
        "base_number": 1,
        "author": "ada",
        "publication": None,
    }
    at = ("policy", "publish", "wider", "--at", "2999-05-01T06:00:00Z", "--reason", "from May on")
    planned_at, *changes = run(*at, *here).stdout.splitlines()
    assert planned_at == "draft `wider` is to be published at 2999-05-01T06:00:00Z"
    assert any(line.startswith("tests/course.toml: 59 tests are removed: ") for line in changes)
    assert changes[-1].startswith("`teaching_assistant` gains publish on material")
    assert "2999-05-01T06:00:00Z" in run("policy", "draft", "list", *here).stdout
    (planned, first) = map(json.loads, run("policy", "history", "--json", *here).stdout.splitlines())
    assert (planned["draft"], planned["publication"]["reason"]) == ("wider", "from May on")
    assert (first["number"], first["active"]) == (1, True)
    assert planned.keys() == first.keys()
    assert "draft:wider" in run("policy", "history", *here).stdout
    cancelled = run("policy", "draft", "cancel", "wider", *here)
    assert cancelled.stdout == "the publication of draft `wider` at 2999-05-01T06:00:00Z is cancelled\n"
    again = run("policy", "draft", "cancel", "wider", *here)
    assert (again.returncode, "nothing to cancel" in again.stderr) == (2, True)
    assert "2999" not in run("policy", "history", *here).stdout
    for bad, says in (("tomorrow", "--at"), ("2001-01-01T00:00:00Z", "is in the past")):
        refused = run("policy", "publish", "wider", "--at", bad, *here)
        assert (refused.returncode, says in refused.stderr) == (2, True)
    published = run("policy", "publish", "wider", "--reason", "let them", *here)
    assert published.stdout.startswith("version 2 is active\n")
    assert published.stdout.splitlines()[-1].startswith("tests: 32 passed")
    assert run("policy", "draft", "list", "--json", *here).stdout == ""


def test_rows_are_added_and_removed_and_a_draft_is_rebased_and_deleted(
    tmp_path: Path, here: tuple[str, str]
) -> None:
    run("policy", "draft", "create", "mine", *here)
    faulty = run("policy", "edit", "mine", "--add", "p, grader, *, course, read, , allow", *here)
    assert "fault: default.csv:" in faulty.stdout
    assert "it has faults" in faulty.stdout
    role = ("--remove", "p, grader, *, course, read, , allow", "--add", "role, grader, course, 30, no,")
    assert "role `grader` is new" in run("policy", "edit", "mine", *role, *here).stdout
    run("policy", "draft", "create", "other", *here)
    run("policy", "edit", "other", "--put", f"notes.txt={__file__}", *here)
    assert run("policy", "publish", "other", *here).returncode == 0
    late = run("policy", "publish", "mine", *here)
    assert (
        late.returncode,
        "rebase the draft `mine` (`authz policy edit mine --rebase`)" in late.stderr,
    ) == (2, True)
    rebased = run("policy", "edit", "mine", "--rebase", *here)
    assert "the changes are those to version 2" in rebased.stdout
    assert run("policy", "export", tmp_path / "out", "--version", "draft:mine", *here).returncode == 0
    assert read_folder(tmp_path / "out").keys() == SHIPPED.keys() | {"notes.txt"}
    assert run("policy", "draft", "delete", "mine", *here).stdout == "draft `mine` is deleted\n"


def test_a_cell_may_be_of_a_type_that_the_same_edit_declares(here: tuple[str, str]) -> None:
    run("policy", "draft", "create", "grading", *here)
    cell = ("--set", "teacher", "essay", "grade", "always")
    edited = run("policy", "edit", "grading", *cell, "--add", "type, essay, read|grade", *here)
    assert "`teacher` gains grade on essay, always\n" in edited.stdout


def test_a_command_is_held_to_the_person_that_it_is_run_for(here: tuple[str, str]) -> None:
    run("course", "create", "algebra", *here)
    run("member", "add", "user:tess", "course:algebra", "teacher", *here)
    as_tess = ("--acting-for", "user:tess")
    refused = run("policy", "draft", "create", "mine", *here, *as_tess)
    assert (refused.returncode, "user:tess has no edit_policy on platform" in refused.stderr) == (2, True)
    added = ("member", "add", "user:new", "course:algebra")
    refused = run(*added, "owner", *here, *as_tess)
    assert (refused.returncode, "may not give or take `owner`" in refused.stderr) == (2, True)
    assert run(*added, "student", *here, *as_tess).returncode == 0


def test_bad_edits_are_told(tmp_path: Path, here: tuple[str, str]) -> None:
    (tmp_path / "logo.png").write_bytes(b"\x89PNG\xff")
    run("policy", "draft", "create", "mine", *here)
    for arguments, says in (
        ((), "nothing to edit"),
        (("--set", "student", "material", "raed", "always"), "did you mean `read`?"),
        (("--set", "student", "material", "read", "own;"), "has an empty alternative"),
        (("--put", "notes"), "is no NAME=FILE"),
        (("--set", "student", "material", "read", "own") * 2, "--set is given twice; give it once"),
        (("--put", f"tests/a.toml={tmp_path}/logo.png"), f"`{tmp_path}/logo.png` is not UTF-8"),
        (("--add", "# a comment"), "`# a comment` is no row"),
        (("--rebase", "--etag", "9"), "its etag is 1, not `9`; look at what it changes"),
        (("--rebase", "--etag", ""), "--etag is empty; give a value, or leave it out"),
    ):
        failed = run("policy", "edit", "mine", *arguments, *here)
        assert (failed.returncode, says in failed.stderr) == (2, True), failed.stderr
    gone = run("policy", "publish", "other", *here).stderr
    assert "there is no draft `other`" in gone
    assert "`authz policy history` what was published" in gone


def test_with_json_the_faults_that_refuse_a_draft_have_their_places(here: tuple[str, str]) -> None:
    """Also where the server finds them: a script need not read the message."""
    assert run("policy", "draft", "create", "bad", *here).returncode == 0
    rows = [
        part for n in range(60) for part in ("--add", f"p, nobody{n}, *, session, read, attending, allow")
    ]
    assert run("policy", "edit", "bad", *rows, *here).returncode == 0
    commands = {
        "diff --new draft:bad": 0,
        "shadow start draft:bad": 0,
        "edit bad --set studnt session read always": 0,
        "preview --version draft:bad": 60,
        "publish bad": 60,
        "publish bad --at 2999-05-01": 60,
    }
    for command, complete in commands.items():
        refused = run("policy", *command.split(), "--json", *here)
        error = json.loads(refused.stderr.splitlines()[-1])
        assert (refused.returncode, error["details"]["reason"]) == (2, "POLICY_INVALID"), command
        faults = error["details"]["faults"]
        assert complete in (0, len(faults)), command
        for fault in faults:
            place = f"{fault['file']}:{fault['line']}:{fault['column']}"
            assert f"{place}: {fault['text']}" in error["message"], command
