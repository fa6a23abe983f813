"""Imports from the command line: what they keep, and which policy a service of one's own decides by."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from authz.client import Client
from authz.domain.entities import (
    Course,
    CourseFilter,
    CourseState,
    Membership,
    MembershipFilter,
    MembershipStatus,
)
from authz.domain.mutations import Mutation, Operation
from authz.policy.load import policy_directory
from tests.cli.commands import run
from tests.serving import served


@pytest.fixture
def roster(tmp_path: Path) -> Path:
    """A roster with the courses `alg` and `old`, and a student in each."""
    return write_roster(tmp_path / "roster", "active")


def write_roster(folder: Path, status: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "classes.csv").write_text(f"sourcedId,status\nalg,active\nold,{status}\n")
    (folder / "enrollments.csv").write_text(
        "sourcedId,status,classSourcedId,userSourcedId,role\n"
        f"e1,active,alg,maya,student\ne2,{status},old,omar,student\ne3,active,alg,pia,proctor\n"
    )
    return folder


def test_an_import_keeps_what_a_roster_does_not_know(roster: Path, address: str) -> None:
    run("import", "oneroster", roster, "--address", address)
    archived = Course(id="alg", state=CourseState.ARCHIVED, ai_enabled=True)
    with Client(address) as client:
        maya = next(m.entity for m in client.read(MembershipFilter()) if m.entity.subject.id == "maya")
        suspended = msgspec.structs.replace(maya, status=MembershipStatus.SUSPENDED)
        client.write([Mutation(Operation.TOUCH, entity) for entity in (archived, suspended)])
    again = run("import", "oneroster", roster, "--address", address)
    assert again.stdout == "written 0, unchanged 4, failed 1\n"
    with Client(address) as client:
        assert archived in [course.entity for course in client.read(CourseFilter())]
        assert suspended in [membership.entity for membership in client.read(MembershipFilter())]


@pytest.mark.parametrize("until", [[], ["--until", "2096-01-01"]])
def test_an_import_lifts_no_suspension_that_a_person_gives_besides_that_of_the_roster(
    roster: Path, address: str, until: list[str]
) -> None:
    users = roster / "users.csv"
    for enabled in ("true", "false", "true"):
        users.write_text(f"sourcedId,status,enabledUser\nmaya,active,{enabled}\n")
        imported = run("import", "oneroster", roster, "--address", address)
        assert imported.returncode == 1, imported.stderr  # a row has an unknown role
        if enabled == "false":
            suspended = run("member", "suspend", "user:maya", "course:alg", *until, "--address", address)
            assert suspended.returncode == 0, suspended.stderr
    assert run("account", "restore", "user:maya", "--address", address).returncode == 0
    checked = run("check", "user:maya", "read", "course:alg", "--address", address)
    assert checked.stdout.startswith("denied  MEMBERSHIP_NOT_EFFECTIVE (SUSPENDED)\n")


def test_new_dates_reach_a_suspended_membership_and_leave_it_suspended(roster: Path, address: str) -> None:
    run("import", "oneroster", roster, "--address", address)
    with Client(address) as client:
        held = [m.entity for m in client.read(MembershipFilter())]
        client.write(
            [
                Mutation(Operation.TOUCH, msgspec.structs.replace(m, status=MembershipStatus.SUSPENDED))
                for m in held
            ]
        )
    (roster / "enrollments.csv").write_text(
        "sourcedId,classSourcedId,userSourcedId,role,endDate\ne1,alg,maya,student,2030-01-01\n"
    )
    run("import", "oneroster", roster, "--address", address)
    with Client(address) as client:
        found: list[Membership] = [m.entity for m in client.read(MembershipFilter())]
    assert {m.status for m in found} == {MembershipStatus.SUSPENDED}
    assert [m.ends_at is not None for m in found] == [True, False]


def held_in(address: str) -> set[tuple[str, str, MembershipStatus]]:
    with Client(address) as client:
        held = [m.entity for m in client.read(MembershipFilter())]
    return {(str(m.subject), f"{m.scope} {m.role}", m.status) for m in held}


@pytest.mark.parametrize(
    ("row", "now"),
    [
        ("e1,active,alg,maya,teacher", ("user:maya", "course:alg teacher")),
        ("e1,active,old,maya,student", ("user:maya", "course:old student")),
        ("e1,active,alg,nora,student", ("user:nora", "course:alg student")),
        ("e1,tobedeleted,alg,maya,teacher", ("user:maya", "course:alg student")),
    ],
)
@pytest.mark.parametrize("status", [MembershipStatus.ACTIVE, MembershipStatus.SUSPENDED])
def test_what_an_enrollment_was_before_goes_when_it_says_something_else(
    roster: Path, address: str, row: str, now: tuple[str, str], status: MembershipStatus
) -> None:
    run("import", "oneroster", roster, "--address", address)
    with Client(address) as client:
        maya = next(m.entity for m in client.read(MembershipFilter()) if m.entity.subject.id == "maya")
        client.write(
            [
                Mutation(Operation.TOUCH, msgspec.structs.replace(maya, status=status)),
                # By hand, or of another source: not the roster's to take back.
                Mutation(Operation.TOUCH, msgspec.structs.replace(maya, role="auditor", source="")),
            ]
        )
    (roster / "enrollments.csv").write_text(f"sourcedId,status,classSourcedId,userSourcedId,role\n{row}\n")
    again = run("import", "oneroster", roster, "--address", address)
    assert "removed: enrollments.csv:2: membership user:maya student in course:alg" in again.stderr
    stays = {
        ("user:omar", "course:old student", MembershipStatus.ACTIVE),
        ("user:maya", "course:alg auditor", MembershipStatus.ACTIVE),
    }
    is_suspended, is_deleted = status is MembershipStatus.SUSPENDED, "tobedeleted" in row
    expected = set(stays)
    if is_suspended and now != ("user:maya", "course:alg teacher"):
        # The suspension is maya's, in this course.
        expected.add(("user:maya", "course:alg student", status))
    if not is_deleted:
        expected.add((*now, status if now[0] == "user:maya" else MembershipStatus.ACTIVE))
    assert held_in(address) == expected


def test_enrollments_that_swap_what_they_say_stay(roster: Path, address: str) -> None:
    run("import", "oneroster", roster, "--address", address)
    before = held_in(address)
    (roster / "enrollments.csv").write_text(
        "sourcedId,classSourcedId,userSourcedId,role\ne2,alg,maya,student\ne1,old,omar,student\n"
    )
    run("import", "oneroster", roster, "--address", address)
    assert held_in(address) == before


def test_a_class_that_is_to_be_deleted_concludes_its_course(roster: Path, address: str) -> None:
    run("import", "oneroster", roster, "--address", address)
    write_roster(roster, "tobedeleted")
    run("import", "oneroster", roster, "--address", address)
    assert run("courses", "--address", address).stdout == (
        "id   state      ai_enabled\nalg  ACTIVE     false\nold  CONCLUDED  false\n"
    )
    assert "omar" not in run("memberships", "--address", address).stdout
    run("import", "oneroster", roster, "--delete-classes", "--address", address)
    assert run("courses", "--address", address).stdout == ("id   state   ai_enabled\nalg  ACTIVE  false\n")


def test_a_role_that_is_not_mapped_is_listed_until_it_is_mapped(roster: Path, address: str) -> None:
    listed = run("import", "oneroster", roster, "--address", address)
    assert "enrollments.csv:4: role `proctor` is not mapped" in listed.stderr
    assert "--role-map proctor=" in listed.stderr
    mapped = run("import", "oneroster", roster, "--role-map", "proctor=auditor", "--address", address)
    assert (mapped.returncode, mapped.stdout) == (0, "written 1, unchanged 4, failed 0\n")


def test_a_broken_roster_leaves_nothing_behind(roster: Path, address: str) -> None:
    (roster / "enrollments.csv").write_text("sourcedId,classSourcedId,userSourcedId\n")
    refused = run("import", "oneroster", roster, "--address", address)
    assert refused.returncode == 2
    assert refused.stderr.startswith(
        "error: enrollments.csv:1: has no column `role`; its columns are `sourcedId`"
    )
    assert run("courses", "--address", address).stdout == "id  state  ai_enabled\n"


def test_a_service_of_ones_own_decides_by_the_policy_of_its_database(
    roster: Path, sqlite_url: str, tmp_path: Path
) -> None:
    run("import", "oneroster", roster, "--database", sqlite_url)
    question = ("check", "user:maya", "read", "course:alg", "--database", sqlite_url)
    assert run(*question).returncode == 0
    folder = tmp_path / "policy"
    shutil.copytree(policy_directory(), folder, ignore=shutil.ignore_patterns("tests"))
    rules = folder / "default.csv"
    kept = [
        line for line in rules.read_text().splitlines() if not line.startswith("p, student, *, course, read,")
    ]
    rules.write_text("\n".join(kept) + "\n")
    assert run("policy", "apply", folder, "--database", sqlite_url).returncode == 0
    denied = run(*question)
    assert (denied.returncode, denied.stdout.splitlines()[0]) == (1, "denied  NO_RULE")


@pytest.mark.parametrize(
    "arguments",
    [("check",), ("check", "user:maya", "read"), ("nonsense",), ("courses", "--nonsense"), ("import", "x")],
)
def test_a_usage_error_is_2_and_never_denied(arguments: tuple[str, ...]) -> None:
    failed = run(*arguments)
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr


def test_an_import_says_when_the_replica_has_not_followed(tmp_path: Path, sqlite_url: str) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("")
    for follows, timeout_s in (("false", "0.1"), ("true", "60")):
        with served(sqlite_url, replication_timeout_s=timeout_s, follow=follows) as address:
            done = run("import", "resources", rows, "--address", address)
        assert done.stdout == "written 0, unchanged 0, failed 0\n"
        assert ("warning: the write is committed, but the replica" in done.stderr) is (follows == "false")


def test_rows_at_fault_are_told_in_the_order_of_the_file_whoever_finds_them(
    tmp_path: Path, address: str
) -> None:
    run("course", "create", "alg", "--state", "active", "--address", address)
    file = tmp_path / "materials.csv"
    file.write_text(
        "id,course_id,visibility\nm1,nowhere,COURSE\nm2,alg,PUBLIC\nm3,nowhere,COURSE\nm4,alg,ALL\n"
    )
    done = run("import", "resources", file, "--type", "material", "--address", address)
    lines = [int(line.split(":")[2]) for line in done.stderr.splitlines() if line.startswith("failed: ")]
    assert (done.returncode, lines) == (1, [2, 3, 4, 5]), done.stderr
