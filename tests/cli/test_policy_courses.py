"""The policies of all courses from the command line: listed, applied and exported together."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from authz.client import CallError, PolicyClient
from tests.cli.commands import run
from tests.serving import served

COURSES = ("algebra-1", "logic-1", "unit/2")


@pytest.fixture
def there(empty_sqlite_url: str) -> Iterator[tuple[str, str]]:
    """A server with three courses."""
    with served(empty_sqlite_url) as address:
        for course in COURSES:
            assert run("course", "create", course, "--state", "active", "--address", address).returncode == 0
        yield ("--address", address)


def apart(course: str, action: str = "read") -> str:
    """A policy of a course without a warning."""
    return "".join(
        f"p, {role}, course:{course}, notebook, {action}, !own & !shared_view, deny\n"
        for role in ("student", "alumni")
    )


def folder_of(folder: Path, **texts: str) -> Path:
    folder.mkdir()
    for name, text in texts.items():
        (folder / f"{name}.csv").write_text(text)
    return folder


def listed(there: tuple[str, str]) -> dict[str, int]:
    """The version that is active in each course with a policy of its own."""
    lines = run("policy", "courses", "list", "--json", *there).stdout.splitlines()
    return {each["course_id"]: each["number"] for each in map(json.loads, lines)}


def results(folder: Path, there: tuple[str, str], *options: str) -> dict[str, tuple[str, int]]:
    """What came of the file of each course."""
    done = run("policy", "courses", "apply", folder, "--json", *options, *there)
    found: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == (2 if any(each["problem"] for each in found) else 0)
    return {each["course_id"]: (each["outcome"], each["number"]) for each in found}


def test_a_folder_is_applied_listed_exported_and_applied_again(
    tmp_path: Path, there: tuple[str, str]
) -> None:
    mine = folder_of(tmp_path / "mine", one=apart("algebra-1"), two=apart("unit/2"))
    tried = run("policy", "courses", "apply", mine, "--validate-only", *there)
    assert (tried.returncode, tried.stdout) == (0, "valid and different 2, unchanged 0, refused 0\n")
    assert listed(there) == {}
    done = run("policy", "courses", "apply", mine, "--reason", "apart", *there)
    assert done.stdout.splitlines() == [
        "version 1 is active in course `algebra-1`",
        "version 1 is active in course `unit/2`",
        "applied 2, unchanged 0, refused 0",
    ]
    assert (done.returncode, done.stderr) == (0, "")
    assert "apart" in run("policy", "history", "--course", "unit/2", *there).stdout
    assert listed(there) == {"algebra-1": 1, "unit/2": 1}
    exported = tmp_path / "exported"
    assert run("policy", "courses", "export", exported, *there).returncode == 0
    assert {path.name: path.read_text() for path in exported.glob("[!.]*")} == {
        "algebra-1.csv": apart("algebra-1"),
        "unit%2F2.csv": apart("unit/2"),
    }
    again = run("policy", "courses", "apply", exported, *there)
    assert again.stdout == "applied 0, unchanged 2, refused 0\n"
    assert "not empty" in run("policy", "courses", "export", exported, *there).stderr


def test_a_file_without_rows_takes_the_rows_from_the_course_of_its_name(
    tmp_path: Path, there: tuple[str, str]
) -> None:
    mine = folder_of(tmp_path / "mine", any=apart("unit/2"))
    (mine / "._any.csv").write_bytes(b"\x00\xff")  # as macOS adds it
    assert results(mine, there) == {"unit/2": ("applied", 1)}
    assert run("policy", "courses", "export", tmp_path / "exported", *there).returncode == 0
    (tmp_path / "exported" / "unit%2F2.csv").write_text("")
    assert results(tmp_path / "exported", there) == {"unit/2": ("applied", 2)}
    # The export knows that the version after it is its own.
    (tmp_path / "exported" / "unit%2F2.csv").write_text(apart("unit/2", "export"))
    assert results(tmp_path / "exported", there) == {"unit/2": ("applied", 3)}


def test_a_file_that_is_refused_does_not_stop_the_others(tmp_path: Path, there: tuple[str, str]) -> None:
    mine = folder_of(
        tmp_path / "mine",
        a=apart("algebra-1", "raed"),
        b=apart("no-such"),
        c="p, *, course:logic-1, notebook, read, !own & !shared_view, deny\n",
    )
    done = run("policy", "courses", "apply", mine, *there)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (2, "applied 1, unchanged 0, refused 2")
    assert "did you mean `read`?" in done.stderr
    assert f"course `no-such` in `{mine / 'b.csv'}` is refused: " in done.stderr
    assert listed(there) == {"logic-1": 1}
    lines = run("policy", "courses", "apply", mine, "--json", *there).stdout.splitlines()
    found = {each["course_id"]: each["faults"] for each in map(json.loads, lines)}
    assert [(each["file"], each["line"]) for each in found.pop("algebra-1")] == [
        ("course.csv", line) for line in (1, 2)
    ]
    assert found == {"no-such": [], "logic-1": []}
    found = results(mine, there)
    assert found == {"algebra-1": ("refused", 0), "no-such": ("refused", 0), "logic-1": ("unchanged", 1)}


def test_a_warning_names_its_course(tmp_path: Path, there: tuple[str, str]) -> None:
    row = "p, student, course:logic-1, notebook, read, !own, deny\n"
    done = run("policy", "courses", "apply", folder_of(tmp_path / "mine", a=row), *there)
    assert "warning: course `logic-1`: course.csv:1: also takes what a share gives" in done.stderr


def test_an_export_does_not_undo_what_another_admin_applied_meanwhile(
    tmp_path: Path, there: tuple[str, str]
) -> None:
    mine = folder_of(tmp_path / "mine", a=apart("algebra-1"), b=apart("logic-1"))
    assert set(results(mine, there)) == {"algebra-1", "logic-1"}
    exported = tmp_path / "exported"
    assert run("policy", "courses", "export", exported, *there).returncode == 0
    other = folder_of(tmp_path / "other", a=apart("algebra-1", "export"))
    assert results(other, there) == {"algebra-1": ("applied", 2)}
    (exported / "logic-1.csv").write_text(apart("logic-1", "export"))
    assert results(exported, there) == {"algebra-1": ("refused", 2), "logic-1": ("applied", 2)}
    assert listed(there) == {"algebra-1": 2, "logic-1": 2}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ({}, "has no file whose name ends in .csv"),
        ({"a": apart("algebra-1") + apart("logic-1")}, "has rows of the courses `algebra-1` and `logic-1`"),
        ({"a": apart("logic-1"), "b": apart("logic-1")}, "are both of course `logic-1`"),
    ],
)
def test_a_folder_that_cannot_be_meant_changes_nothing(
    tmp_path: Path, there: tuple[str, str], texts: dict[str, str], message: str
) -> None:
    done = run("policy", "courses", "apply", folder_of(tmp_path / "mine", **texts), *there)
    assert (done.returncode, message in done.stderr) == (2, True)
    assert listed(there) == {}


def test_a_server_that_goes_away_ends_the_command_at_once(
    tmp_path: Path, there: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []

    def away(_: object, files: object, *, course_id: str, **__: object) -> None:
        tried.append(course_id)
        raise CallError(grpc.StatusCode.UNAVAILABLE, "", "the server is stopping")

    monkeypatch.setattr(PolicyClient, "apply", away)
    mine = folder_of(tmp_path / "mine", a=apart("algebra-1"), b=apart("logic-1"))
    done = run("policy", "courses", "apply", mine, *there)
    assert (done.returncode, tried) == (2, ["algebra-1"])
    assert "the server is stopping" in done.stderr
