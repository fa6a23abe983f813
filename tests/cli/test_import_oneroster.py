"""`authz import oneroster` with its options, against a real service."""

from __future__ import annotations

import os
import shutil
import zipfile
from pathlib import Path

import msgspec
import pytest

from authz.client import Client
from authz.domain.entities import (
    AccountFilter,
    AccountStatus,
    Course,
    CourseFilter,
    CourseState,
    Membership,
    MembershipFilter,
    MembershipStatus,
)
from authz.domain.mutations import Mutation, Operation
from authz.policy.load import POLICY_FILE
from tests.callers import grant
from tests.cli.commands import run
from tests.importers.exports import Row, by_hand, enrolled, export, klass, user
from tests.policies import SHIPPED
from tests.serving import served

ROSTER = {"classes": "bulk", "enrollments": "bulk"}
MANY = 1100


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the export is."""
    return tmp_path / "export"


def held(address: str) -> dict[str, Membership]:
    with Client(address) as client:
        return {str(each.entity.key): each.entity for each in client.read(MembershipFilter())}


def members(count: int) -> list[Row]:
    return [enrolled(f"e{n}", "alg", f"u{n}") for n in range(count)]


def take_in(folder: Path, address: str, *options: str) -> tuple[int, str, str]:
    done = run("import", "oneroster", folder, "--address", address, *options)
    return done.returncode, done.stdout, done.stderr


def test_a_dry_run_prints_exactly_what_the_import_then_changes(folder: Path, address: str) -> None:
    rows = [enrolled("e1", "alg", "maya"), enrolled("e2", "alg", "omar"), enrolled("e3", "alg", "nora")]
    take_in(export(folder, rows), address)
    before = held(address)
    export(
        folder,
        [
            enrolled("e1", "alg", "maya", end="2030-01-01"),
            enrolled("e2", "alg", "omar", "guardian"),
            enrolled("e3", "alg", "nora", status="tobedeleted"),
            enrolled("e4", "alg", "pia"),
        ],
        classes=[klass("alg"), klass("bio")],
    )
    code, output, errors = take_in(folder, address, "--dry-run")
    assert code == 1
    assert output.splitlines() == [
        "suspended enrollments.csv:3: membership user:omar student in course:alg (ACTIVE -> SUSPENDED: the "
        "row is at fault, source_ref e2 -> e2;suspended=row)",
        "removed enrollments.csv:4: membership user:nora student in course:alg",
        "added classes.csv:3: course:bio",
        "changed enrollments.csv:2: membership user:maya student in course:alg (ends_at none -> "
        "2030-01-01T00:00:00Z)",
        "added enrollments.csv:5: membership user:pia student in course:alg",
        "would write 5, unchanged 1, failed 1",
    ]
    assert "failed: enrollments.csv:3: role `guardian` is not mapped" in errors
    assert held(address) == before
    code, output, errors = take_in(folder, address)
    assert (code, output) == (1, "written 5, unchanged 1, failed 1\n")
    assert "suspended: enrollments.csv:3: membership user:omar student in course:alg" in errors
    assert "removed: enrollments.csv:4: membership user:nora student in course:alg" in errors
    assert take_in(folder, address, "--dry-run")[1] == "would write 0, unchanged 5, failed 1\n"


def test_a_dry_run_makes_no_database(folder: Path, tmp_path: Path) -> None:
    export(folder, [enrolled("e1", "alg", "maya")], modes=ROSTER)
    there = ("--database", f"sqlite:///{tmp_path / 'none.db'}")
    done = run("import", "oneroster", folder, *there, "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == "would write 2, unchanged 0, failed 0"
    assert list(tmp_path.glob("none*")) == []


def test_an_import_that_would_end_many_memberships_stops_before_it_writes(folder: Path, address: str) -> None:
    take_in(export(folder, members(20), modes=ROSTER), address)
    before = held(address)
    export(folder, members(10), classes=[klass("alg"), klass("bio")], modes=ROSTER)
    code, output, errors = take_in(folder, address)
    assert (code, output) == (2, "")
    assert "would end 10 of 20 memberships of this roster, 10 of them because they are absent" in errors
    assert "removed: enrollments.csv: membership user:u10 student in course:alg" in errors
    assert "--allow-removals" in errors
    assert held(address) == before
    assert "bio" not in run("courses", "--address", address).stdout
    assert take_in(folder, address, "--max-removals", "0.5")[0] == 0
    export(folder, [], modes=ROSTER)
    assert take_in(folder, address)[0] == 2
    assert take_in(folder, address, "--allow-removals")[:2] == (0, "written 10, unchanged 1, failed 0\n")


def test_all_or_nothing_writes_nothing_if_a_row_is_at_fault(folder: Path, address: str) -> None:
    export(folder, [enrolled("e1", "alg", "maya"), enrolled("e2", "alg", "omar", "guardian")])
    code, _, errors = take_in(folder, address, "--all-or-nothing")
    assert code == 2
    assert "failed: enrollments.csv:3: role `guardian` is not mapped" in errors
    assert "error: rows at fault: 1; nothing was written" in errors
    assert held(address) == {}
    export(folder, [enrolled("e1", "alg", "maya")])
    assert take_in(folder, address, "--all-or-nothing")[:2] == (0, "written 2, unchanged 0, failed 0\n")


@pytest.mark.parametrize("count", [1, MANY])
def test_all_or_nothing_writes_nothing_for_a_role_that_the_policy_does_not_know(
    folder: Path, address: str, tmp_path: Path, count: int
) -> None:
    policy = tmp_path / "policy"
    policy.mkdir()
    for name in ("model.conf", POLICY_FILE, "invariants.toml"):
        kept = [line for line in SHIPPED[name].splitlines() if "teaching_assistant, " not in line]
        (policy / name).write_text("\n".join(kept))
    applied = run("policy", "apply", policy, "--address", address)
    assert applied.returncode == 0, applied.stderr
    rows = [*members(count), enrolled("p1", "alg", "pia", "aide")]
    export(folder, rows)
    code, _, errors = take_in(folder, address, "--all-or-nothing")
    assert code == 2
    fault = f"failed: enrollments.csv:{count + 2}: unknown role `teaching_assistant`; "
    assert [line for line in errors.splitlines() if line.startswith(fault)]
    assert errors.endswith("; nothing was written, because of `--all-or-nothing`\n")
    assert run("courses", "--address", address).stdout == "id  state  ai_enabled\n"
    done = take_in(folder, address, "--all-or-nothing", "--role-map", "Aide=auditor")
    assert done[:2] == (0, f"written {count + 2}, unchanged 0, failed 0\n")


def test_a_membership_that_a_person_gave_is_left_as_it_is_and_noted(folder: Path, address: str) -> None:
    given = by_hand("maya", ends_at=2_000_000_000_000_000)
    take_in(export(folder), address)
    with Client(address) as client:
        client.write([Mutation(Operation.TOUCH, given)])
    code, output, errors = take_in(export(folder, [enrolled("e1", "alg", "maya")]), address)
    assert (code, output) == (0, "written 0, unchanged 2, failed 0\n")
    assert (
        "note: enrollments.csv:2: membership user:maya student in course:alg is of source `admin`" in errors
    )
    assert held(address) == {str(given.key): given}


def test_a_deleted_and_a_disabled_user_may_nothing(folder: Path, address: str) -> None:
    rows = [enrolled("e1", "alg", "maya"), enrolled("e2", "alg", "omar"), enrolled("e3", "alg", "nora")]
    users = [user("maya", "tobedeleted"), user("omar", enabledUser="false"), user("nora")]
    take_in(export(folder, rows, users=users), address)
    answers = [
        run("check", f"user:{name}", "read", "course:alg", "--address", address).returncode
        for name in ("maya", "omar", "nora")
    ]
    assert answers == [1, 1, 0]
    with Client(address) as client:
        accounts = {str(each.entity.subject): each.entity.status for each in client.read(AccountFilter())}
    assert accounts == dict.fromkeys(("user:maya", "user:omar"), AccountStatus.SUSPENDED)


def test_a_caller_with_the_role_for_it_imports_whatever_a_roster_says(
    folder: Path, sqlite_url: str, tmp_path: Path
) -> None:
    grant(sqlite_url, {"service:roster": "roster_importer"})
    token = tmp_path / "token"
    token.write_text(run("token", "create", "service:roster", "--database", sqlite_url).stdout)
    rows = [enrolled("e1", "alg", "maya"), enrolled("e2", "alg", "omar", primary="true", role="teacher")]
    users = [user("maya"), user("omar")]
    with served(sqlite_url, access_tokens="true") as address:
        reach = ("--address", address, "--token-file", token, "--role-map", "aide=auditor")
        modes = ROSTER | {"users": "bulk"}
        first = run("import", "oneroster", export(folder, rows, users=users, modes=modes), *reach)
        assert (first.returncode, first.stdout) == (0, "written 3, unchanged 0, failed 0\n"), first.stderr
        export(
            folder,
            [*rows[:1], enrolled("e3", "alg", "nora", "aide")],
            users=[user("maya", enabledUser="false"), user("nora")],
            modes=modes,
        )
        assert run("import", "oneroster", folder, *reach, "--allow-removals").returncode == 0
        export(folder, [], classes=[klass("alg", "tobedeleted")], users=[], modes=modes)
        assert (
            run("import", "oneroster", folder, *reach, "--allow-removals", "--delete-classes").returncode == 0
        )
    assert run("accounts", "--database", sqlite_url).stdout.split() == [
        "subject", "status", "suspended_until", "user:maya", "SUSPENDED", "-"
    ]  # fmt: skip
    assert run("courses", "--database", sqlite_url).stdout.split() == ["id", "state", "ai_enabled"]


def test_a_class_that_returns_gets_its_content_back(folder: Path, address: str, tmp_path: Path) -> None:
    rows = [enrolled("e1", "alg", "maya")]
    take_in(export(folder, rows), address)
    materials = tmp_path / "materials.csv"
    materials.write_text("id,course_id,published\nm1,alg,true\n")
    run("import", "resources", materials, "--type", "material", "--address", address)
    take_in(export(folder, rows, classes=[klass("alg", "tobedeleted")]), address)
    with Client(address) as client:
        assert [each.entity.state for each in client.read(CourseFilter())] == [CourseState.CONCLUDED]
    take_in(export(folder, rows), address)
    assert run("check", "user:maya", "read", "material:m1", "--address", address).returncode == 0
    assert list(held(address)) == ["membership user:maya student in course:alg"]


def test_dates_are_in_the_time_zone_that_is_given(folder: Path, address: str) -> None:
    export(folder, [enrolled("e1", "alg", "maya", end="2030-07-01")])
    take_in(folder, address, "--time-zone", "America/New_York")
    assert "2030-07-01T04:00:00Z" in run("memberships", "--address", address).stdout


@pytest.mark.parametrize(
    ("option", "value", "complaint"),
    [
        (
            "--time-zone",
            "Berlin",
            "error: --time-zone `Berlin` is not known; use a name like `Europe/Berlin`\n",
        ),
        ("--time-zone", "/etc/passwd", "error: --time-zone `/etc/passwd` is not known; use a name like"),
        ("--role-map", "proctor", "error: --role-map `proctor` is not like `proctor=auditor`\n"),
        ("--source", "a b", "error: --source `a b` has the character ` `"),
    ],
)
def test_an_option_that_cannot_be_followed_is_refused(
    folder: Path, address: str, option: str, value: str, complaint: str
) -> None:
    code, _, errors = take_in(export(folder), address, option, value)
    assert code == 2
    assert errors.startswith(complaint)


@pytest.mark.parametrize(
    ("role", "complaint"),
    [
        ("auditr", "unknown role `auditr`; did you mean `auditor`?"),
        ("host", "role `host` belongs to a session, not to a course; "),
        ("platform_admin", "role `platform_admin` belongs to a platform, not to a course; "),
    ],
)
def test_a_row_whose_role_the_policy_does_not_declare_for_courses_is_a_fault_also_in_a_dry_run(
    folder: Path, address: str, role: str, complaint: str
) -> None:
    take_in(
        export(folder, [enrolled("e1", "-", "maya"), enrolled("e2", "-", "pia")], classes=[klass("-")]),
        address,
    )
    rows = [enrolled("e1", "-", "maya", "proctor"), enrolled("e3", "-", "omar", "proctor")]
    export(folder, rows, classes=[klass("-")], modes=ROSTER)
    options = ("--role-map", f"proctor={role}", "--allow-removals")
    code, output, errors = take_in(folder, address, *options, "--dry-run")
    assert code == 1
    assert output.endswith("would write 2, unchanged 1, failed 2\n")
    for line in (2, 3):
        assert f"failed: enrollments.csv:{line}: {complaint}" in errors
    assert take_in(folder, address, *options)[:2] == (1, "written 2, unchanged 1, failed 2\n")
    assert {key: each.status for key, each in held(address).items()} == {
        "membership user:maya student in course:-": MembershipStatus.SUSPENDED
    }


def test_the_advice_for_a_role_works_as_it_is_printed(folder: Path, address: str) -> None:
    export(folder, [enrolled("e1", "alg", "maya", "Head=Of Year")])
    assert "--role-map 'head=of year'=…" in take_in(folder, address)[2]
    assert take_in(folder, address, "--role-map", "head=of year=auditor")[0] == 0
    assert list(held(address)) == ["membership user:maya auditor in course:alg"]


def test_ids_that_are_too_long_are_replaced_and_recorded(folder: Path, address: str, tmp_path: Path) -> None:
    course, maya = "c" * 255, "u" * 200
    export(folder, [enrolled("e" * 255, course, maya)], classes=[klass(course)])
    assert (
        "3 ids are too long and were replaced; record the originals with `--id-map FILE`"
        in take_in(folder, address, "--dry-run")[2]
    )
    code, _, errors = take_in(folder, address, "--id-map", str(tmp_path / "no" / "ids.csv"))
    assert (code, held(address)) == (2, {})
    assert f"--id-map is in `{tmp_path / 'no'}`, which is no folder; make it" in errors
    ids = tmp_path / "ids.csv"
    assert take_in(folder, address, "--id-map", str(ids))[0] == 0
    recorded = dict(line.split(",") for line in ids.read_text().splitlines()[1:])
    (found,) = held(address).values()
    assert recorded == {found.scope.id: course, found.subject.id: maya, found.source_ref: "e" * 255}
    assert take_in(folder, address, "--id-map", str(ids))[1] == "written 0, unchanged 2, failed 0\n"


@pytest.mark.parametrize(
    "name",
    [b"Roster at 9.41.00\xe2\x80\xafPM", b"soft\xc2\xadhyphen", b"bad\xff", b"a" * 255, b"tab\tnew\nline"],
)
def test_a_file_may_have_a_name_of_any_characters(
    folder: Path, tmp_path: Path, address: str, name: bytes
) -> None:
    there = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), name)))  # noqa: PTH118  bytes
    try:
        shutil.copytree(export(folder, [enrolled("e1", "alg", "maya")]), there)
    except OSError as error:
        pytest.skip(f"the file system takes no such name: {error}")
    assert take_in(there, address)[:2] == (0, "written 2, unchanged 0, failed 0\n")


def test_a_zip_of_a_folder_is_read(folder: Path, tmp_path: Path, address: str) -> None:
    export(folder, [enrolled("e1", "alg", "maya")])
    with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
        for each in folder.iterdir():
            archive.write(each, f"export/{each.name}")
    assert take_in(tmp_path / "export.zip", address)[0] == 0
    assert list(held(address)) == ["membership user:maya student in course:alg"]


def test_what_an_import_does_not_change_is_not_written(folder: Path, address: str) -> None:
    rows = members(3)
    take_in(export(folder, rows), address)
    with Client(address) as client:
        before = client.current_token()
    take_in(folder, address)
    with Client(address) as client:
        assert client.current_token() == before
        course = next(each.entity for each in client.read(CourseFilter()))
        client.write([Mutation(Operation.TOUCH, msgspec.structs.replace(course, ai_enabled=True))])
    take_in(folder, address)
    with Client(address) as client:
        assert [each.entity for each in client.read(CourseFilter())] == [
            Course(id="alg", state=CourseState.ACTIVE, ai_enabled=True)
        ]
