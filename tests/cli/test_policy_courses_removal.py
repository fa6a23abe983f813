"""`authz policy courses apply --remove-absent`: the policies of courses that a folder no longer has end."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from authz.client import Client
from authz.domain.entities import Course, CourseState
from authz.domain.mutations import Mutation, Operation
from tests.cli.commands import run
from tests.cli.test_policy_courses import apart, folder_of, listed
from tests.serving import served

COURSES = [f"c{number:02}" for number in range(11)]


@pytest.fixture
def address(empty_sqlite_url: str) -> Iterator[str]:
    """A server with courses, each of which has a policy of its own."""
    with served(empty_sqlite_url) as serving, Client(serving) as client:
        made = [Course(id=course, state=CourseState.ACTIVE) for course in COURSES]
        client.write([Mutation(Operation.CREATE, each) for each in made])
        for course in COURSES:
            client.policies.apply({"course.csv": apart(course)}, course_id=course)
        yield serving


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return folder_of(tmp_path / "mine", **{course: apart(course) for course in COURSES})


def apply(folder: Path, address: str, *options: str) -> tuple[int, str, str]:
    done = run("policy", "courses", "apply", folder, *options, "--address", address)
    return done.returncode, done.stdout, done.stderr


def test_the_policy_of_a_course_without_a_file_ends(folder: Path, address: str) -> None:
    (folder / "c03.csv").unlink()
    there = ("--address", address)
    assert apply(folder, address)[1] == "applied 0, unchanged 10, refused 0\n"
    assert apply(folder, address, "--remove-absent", "--validate-only") == (
        0,
        "the policy of course `c03` would be removed\n"
        "valid and different 0, unchanged 10, refused 0, to be removed 1\n",
        "",
    )
    assert listed(there) == dict.fromkeys(COURSES, 1)
    assert apply(folder, address, "--remove-absent", "--reason", "left the repository") == (
        0,
        "the policy of course `c03` is removed\napplied 0, unchanged 10, refused 0, removed 1\n",
        "",
    )
    assert listed(there) == dict.fromkeys(COURSES, 1) | {"c03": 2}
    with Client(address) as client:
        assert client.policies.files(2, course_id="c03") == {"course.csv": ""}
        reasons = {each.number: each.reason for each in client.policies.versions(course_id="c03")}
    assert reasons[2] == "left the repository"
    again = apply(folder, address, "--remove-absent", "--json")
    assert {each["outcome"] for each in map(json.loads, again[1].splitlines())} == {"unchanged"}
    assert len(again[1].splitlines()) == 10


def test_more_than_a_tenth_ends_only_with_permission(folder: Path, address: str) -> None:
    there = ("--address", address)
    for course in ("c03", "c04"):
        (folder / f"{course}.csv").unlink()
    (folder / "c05.csv").write_text(apart("c05", "export"))
    before = listed(there)
    code, printed, told = apply(folder, address, "--remove-absent")
    assert (code, printed) == (2, "")
    assert "no file for 2 of 11 courses with a policy of their own: `c03`, `c04`; at most 10%" in told
    assert "nothing was applied" in told
    assert listed(there) == before
    code, printed, told = apply(folder, address, "--remove-absent", "--validate-only")
    assert (code, printed.splitlines()[-1]) == (
        0,
        "valid and different 1, unchanged 8, refused 0, to be removed 2",
    )
    assert told.startswith("note: the folder has no file for 2 of 11 courses")
    assert listed(there) == before
    code, printed, told = apply(folder, address, "--remove-absent", "--allow-removals")
    assert (code, printed.splitlines()[-1]) == (0, "applied 1, unchanged 8, refused 0, removed 2")
    assert listed(there) == before | dict.fromkeys(("c03", "c04", "c05"), 2)
    # Those that have ended count no longer: one of nine is more than a tenth, too.
    (folder / "c06.csv").unlink()
    code, _, told = apply(folder, address, "--remove-absent")
    assert (code, "no file for 1 of 9 courses" in told) == (2, True)


def test_a_folder_whose_files_are_refused_ends_none_of_their_policies(folder: Path, address: str) -> None:
    (folder / "c03.csv").write_text(apart("c03", "raed"))
    code, printed, _ = apply(folder, address, "--remove-absent")
    assert (code, printed.splitlines()[-1]) == (2, "applied 0, unchanged 10, refused 1, removed 0")
    assert listed(("--address", address)) == dict.fromkeys(COURSES, 1)


def test_permission_without_the_option_is_refused(folder: Path) -> None:
    code, _, told = apply(folder, "127.0.0.1:1", "--allow-removals")
    assert (code, "`--allow-removals` permits what `--remove-absent` does" in told) == (2, True)
