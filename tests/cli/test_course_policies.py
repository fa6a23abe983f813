"""The policy of a course from the command line: applied, looked at, proved, compared, taken back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.commands import run
from tests.serving import served

APART = "p, student, course:algebra-1, notebook, read, !own & !shared_view, deny\n"
HERE = ("--course", "algebra-1")


@pytest.fixture(scope="module")
def created(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the course."""
    file = tmp_path_factory.mktemp("created") / "authz.db"
    done = run("course", "create", "algebra-1", "--state", "active", "--database", f"sqlite:///{file}")
    assert done.returncode == 0
    return file


@pytest.fixture
def there(created: Path, tmp_path: Path) -> Iterator[tuple[str, str]]:
    """A server over a copy of it, which a test may change."""
    with served(f"sqlite:///{shutil.copy(created, tmp_path)}") as address:
        yield ("--address", address)


def file_of(folder: Path, text: str) -> Path:
    (folder / "mine.csv").write_text(text)
    return folder / "mine.csv"


def test_a_file_is_looked_at_applied_listed_exported_and_taken_back(
    tmp_path: Path, there: tuple[str, str]
) -> None:
    file = file_of(tmp_path, APART)
    changes = run("policy", "diff", file, *HERE, *there)
    assert changes.returncode == 1
    assert changes.stdout.startswith("`student` loses read on notebook in course algebra-1, when ")
    validated = run("policy", "validate", file, *HERE, *there)
    assert "\nvalid: 1 rule, 1 warning; digest " in validated.stdout
    assert validated.stderr == f"read course `algebra-1` in `{file}`\n"
    assert run("policy", "prove", file, *HERE, *there).stdout.startswith("proved: 23 invariants")
    tried = run("policy", "apply", file, "--validate-only", *HERE, *there)
    assert (tried.returncode, tried.stdout) == (0, f"valid\n{changes.stdout}")
    applied = run("policy", "apply", file, "--reason", "apart", *HERE, *there)
    assert (applied.returncode, applied.stdout) == (0, f"version 1 is active\n{changes.stdout}")
    assert "same files" in run("policy", "apply", file, *HERE, *there).stdout
    file.write_text("")
    assert run("policy", "apply", file, *HERE, *there).stdout.startswith("version 2 is active\n")
    back = json.loads(run("policy", "rollback", "1", "--json", *HERE, *there).stdout)
    assert (back["active"]["number"], back["changed"], back["tests"]) == (3, True, None)
    listed = run("policy", "history", "--json", *HERE, *there).stdout.splitlines()
    assert [(json.loads(line)["number"], json.loads(line)["active"]) for line in listed] == [
        (3, True),
        (2, False),
        (1, False),
    ]
    shown = run("policy", "show", *HERE, *there)
    assert shown.stderr == "read version 3 (active) of course `algebra-1`\n"
    assert "!own & !shared_view" in shown.stdout
    assert "!own" not in run("policy", "show", "--version", "2", *HERE, *there).stdout
    out = tmp_path / "out.csv"
    assert run("policy", "export", out, *HERE, *there).returncode == 0
    assert out.read_text() == APART
    assert "exists; name a new file" in run("policy", "export", out, *HERE, *there).stderr
    assert run("policy", "diff", "--old", "1", *HERE, *there).stdout == (
        "no access changes: by their own rules, the two policies decide everything alike\n"
    )
    assert run("policy", "diff", "--old", "2", *HERE, *there).returncode == 1
    platform = run("policy", "history", "--json", *there).stdout.splitlines()
    assert [json.loads(line)["number"] for line in platform] == [1]


def test_an_exported_file_does_not_undo_what_another_admin_applied_meanwhile(
    tmp_path: Path, there: tuple[str, str]
) -> None:
    run("policy", "apply", file_of(tmp_path, APART), *HERE, *there)
    ada, ben = tmp_path / "ada.csv", tmp_path / "ben.csv"
    for file in (ada, ben):
        assert run("policy", "export", file, *HERE, *there).returncode == 0
    ada.write_text("")
    assert "version 2 is active" in run("policy", "apply", ada, *HERE, *there).stdout
    ben.write_text(APART + APART.replace("notebook", "material"))
    refused = run("policy", "apply", ben, *HERE, *there)
    assert refused.returncode == 2
    assert f"`{ben}` was exported from version 1, and version 2 is active" in refused.stderr
    assert "`--expected-active 2`" in refused.stderr
    assert "version 2 is active" in run("policy", "apply", ada, *HERE, *there).stdout
    run("course", "create", "poetry-1", *there)
    elsewhere = run("policy", "apply", ben, "--course", "poetry-1", *there)
    assert (elsewhere.returncode, "and no version is active" in elsewhere.stderr) == (2, True)
    replaced = run("policy", "apply", ben, "--expected-active", "2", *HERE, *there)
    assert "version 3 is active" in replaced.stdout


def test_its_certificate_convinces_the_checker(tmp_path: Path, there: tuple[str, str]) -> None:
    run("policy", "apply", file_of(tmp_path, APART), *HERE, *there)
    mine = tmp_path / "certificate.json"
    assert run("policy", "prove", "--certificate", mine, *HERE, *there).returncode == 0
    for how in (("--check", str(mine)), ("--version", "active", "--served")):
        checked = run("policy", "prove", *how, *HERE, *there)
        assert checked.stdout.startswith("the certificate holds: 23 invariants"), checked.stderr
    other = file_of(tmp_path, APART.replace("!own & !shared_view", "!own"))
    refused = run("policy", "prove", other, "--check", mine, *HERE, *there)
    assert "is of another policy" in refused.stderr


def test_a_broken_invariant_comes_with_a_test_that_fails(tmp_path: Path, there: tuple[str, str]) -> None:
    leak = file_of(tmp_path, "p, student, course:algebra-1, material, read, , allow\n")
    broken = run("policy", "prove", leak, *HERE, *there)
    assert broken.returncode == 1
    assert "broken: unpublished-materials" in broken.stdout
    assert "course.csv:1: student, course:algebra-1, material, read, , allow" in broken.stdout
    refused = run("policy", "apply", leak, *HERE, *there)
    assert refused.returncode == 2
    assert "course.csv:1:1: breaks the invariant `unpublished-materials`" in refused.stderr


def test_a_warning_is_of_the_rows_of_the_course(tmp_path: Path, there: tuple[str, str]) -> None:
    file = file_of(tmp_path, "p, student, course:algebra-1, notebook, read, !own, deny\n")
    warned = run("policy", "validate", file, "--strict", "--json", *HERE, *there)
    assert warned.returncode == 1
    shares, over = json.loads(warned.stdout)["warnings"]
    assert shares["where"] == over["where"] == "course.csv:1"
    assert "also takes what a share gives" in shares["text"]
    assert "ends with the course: `student` becomes `alumni`" in over["text"]
    by_server = run("policy", "validate", file, "--with-directory", "--strict", "--json", *HERE, *there)
    assert json.loads(by_server.stdout)["warnings"] == [shares, over]
    assert "also takes what a share gives" in run("policy", "apply", file, *HERE, *there).stderr


def test_a_server_also_tells_a_row_of_a_course_that_breaks_an_invariant(
    tmp_path: Path, there: tuple[str, str]
) -> None:
    leak = file_of(tmp_path, "p, student, course:algebra-1, material, read, , allow\n")
    assert run("policy", "validate", leak, *HERE, *there).returncode == 0
    found = run("policy", "validate", leak, "--with-directory", *HERE, *there)
    assert (found.returncode, "course.csv:1:1: breaks the invariant" in found.stderr) == (2, True)


def test_a_mistake_is_told(tmp_path: Path, there: tuple[str, str]) -> None:
    (tmp_path / "empty.csv").write_text("")
    paths = {"FILE": file_of(tmp_path, APART), "FOLDER": tmp_path, "EMPTY": tmp_path / "empty.csv"}
    mistakes: tuple[tuple[tuple[str, ...], str], ...] = (
        (("apply", "FILE"), "is a file; name the folder of the policy, or the course"),
        (("apply", "FOLDER", *HERE), "is a folder; the policy of a course is one file"),
        (("history", "--course", "none"), "course:none does not exist"),
        (("show", *HERE), "course:algebra-1 has no policy of its own"),
        (("apply", "FILE", "--course", "none"), "course:none does not exist"),
        (("apply", "EMPTY", "--course", "none"), "course:none does not exist"),
        (("rollback", "1", "--course", ""), "--course is empty"),
        (("rollback", "1", *HERE), "`authz policy history --course algebra-1` lists them"),
        (("apply", "FILE", "--expected-active", "1", *HERE), "(`authz policy history --course algebra-1`)"),
        (("publish", "mine", *HERE), "`authz policy draft list --course algebra-1` lists them"),
        (("draft", "list", "--course", "algebra 1"), "--course `algebra 1` has the character ` `"),
        (("show", "--version", "shipped", *HERE), "no policy of a course is shipped"),
        (("validate", "FILE", "--version", "1", *HERE), "name a file or `--version`, not both"),
    )
    for arguments, says in mistakes:
        refused = run("policy", *(str(paths.get(each, each)) for each in arguments), *there)
        assert refused.returncode == 2, arguments
        assert says in refused.stderr


def test_the_history_of_a_course_without_a_policy_has_its_planned_first_version(
    there: tuple[str, str],
) -> None:
    nothing = run("policy", "history", *HERE, *there)
    assert (nothing.returncode, len(nothing.stdout.splitlines())) == (0, 1)
    assert nothing.stderr.startswith("note: course `algebra-1` has no policy of its own")
    run("policy", "draft", "create", "apart", *HERE, *there)
    run("policy", "edit", "apart", "--add", APART.strip(), *HERE, *there)
    assert run("policy", "publish", "apart", "--at", "2099-01-01", *HERE, *there).returncode == 0
    (planned,) = run("policy", "history", *HERE, *there).stdout.splitlines()[1:]
    assert planned.startswith("draft:apart  planned for 2099-01-01T00:00:00Z")


def test_a_draft_of_a_course_is_edited_looked_at_and_published(there: tuple[str, str]) -> None:
    created = run("policy", "draft", "create", "apart", *HERE, *there)
    assert created.stdout == "draft `apart` is without rules\n"
    edited = run("policy", "edit", "apart", "--add", APART.strip(), *HERE, *there)
    assert edited.stdout.startswith("`student` loses read on notebook in course algebra-1, when ")
    assert edited.stdout.endswith("the changes are those to the platform's policy alone\n")
    named = ("--version", "draft:apart", *HERE, *there)
    assert "1 rule, 1 warning;" in run("policy", "validate", *named).stdout
    assert run("policy", "prove", *named).stdout.startswith("proved: 23 invariants")
    assert "!own & !shared_view" in run("policy", "show", *named).stdout
    assert run("policy", "diff", "--new", "draft:apart", *HERE, *there).returncode == 1
    previewed = run("policy", "preview", *named).stdout
    assert previewed.startswith(
        "nobody gains or loses anything against what is active in course `algebra-1`, "
    )
    listed = run("policy", "draft", "list", "--json", *HERE, *there).stdout
    assert json.loads(listed)["id"] == "apart"
    assert run("policy", "draft", "list", "--json", *there).stdout == ""
    published = run("policy", "publish", "apart", *HERE, *there)
    assert published.stdout.startswith("version 1 is active\n`student` loses read on notebook")
    run("policy", "draft", "create", "other", *HERE, *there)
    assert run("policy", "draft", "delete", "other", *HERE, *there).returncode == 0


@pytest.mark.parametrize(
    "command",
    [
        "validate FILE",
        "validate",
        "show FILE",
        "prove FILE",
        "diff FILE FILE",
        "preview FILE",
        "apply FILE",
        "history",
        "export new.csv",
        "draft create mine",
        "draft list",
        "shadow show",
        "shadow stop",
    ],
)
def test_a_course_that_is_not_there_is_named(tmp_path: Path, there: tuple[str, str], command: str) -> None:
    file = file_of(tmp_path, APART.replace("algebra-1", "algebr-1"))
    words = [str(file) if word == "FILE" else word for word in command.split()]
    refused = run("policy", *words, "--course", "algebr-1", *there)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "course:algebr-1 does not exist" in refused.stderr
