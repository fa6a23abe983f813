"""The commands that write one record, against a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from authz.client import Client
from authz.domain.entities import MembershipFilter, MembershipKey, MembershipStatus, Resource
from authz.domain.ids import course_scope, parse_subject
from authz.domain.mutations import Mutation, Operation, update
from tests import forkserver
from tests.cli.commands import run
from tests.serving import both_transports, served

MAYA = MembershipKey(parse_subject("user:maya"), course_scope("alg"), "student")


@pytest.fixture
def course(sqlite_url: str) -> Iterator[str]:
    """The address of a server with the active course `alg`, the student `maya` and her notebook."""
    with served(sqlite_url) as address:
        did(address, "course create alg --state active")
        did(address, "member add user:maya course:alg student --until 2096-07-31")
        with Client(address) as client:
            notebook = Resource(type="notebook", id="nb", scope=MAYA.scope, owner=MAYA.subject)
            client.write([Mutation(Operation.CREATE, notebook)])
        yield address


def did(address: str, command: str) -> list[list[str]]:
    """The cells that a command prints, without the heading. It must succeed."""
    done = run(*command.split(), "--address", address)
    assert (done.returncode, done.stderr) == (0, ""), command
    return [line.split() for line in done.stdout.splitlines()[1:]]


def refused(address: str, command: str) -> str:
    """The error of a command that must fail."""
    failed = run(*command.split(), "--address", address)
    assert (failed.returncode, failed.stdout) == (2, ""), command
    assert failed.stderr.count("\n") == 1
    return failed.stderr.removeprefix("error: ").strip()


def allowed(address: str, *question: str) -> bool:
    return run("check", *question, "--address", address).returncode == 0


def test_an_update_changes_what_its_options_name(course: str) -> None:
    assert did(course, "course update alg --ai --edit-window-s 60") == [["alg", "ACTIVE", "true"]]
    assert did(course, "course update alg --no-ai --state concluded") == [["alg", "CONCLUDED", "false"]]
    (listed,) = run("courses", "--json", "--address", course).stdout.splitlines()
    assert json.loads(listed)["entity"]["edit_window_us"] == 60_000_000
    assert refused(course, "course update alg") == (
        "nothing to change in course:alg; name a field with an option, see `--help`"
    )
    assert "course:none does not exist" in refused(course, "course update none --ai")
    assert "course:alg exists" in refused(course, "course create alg")


@both_transports
def test_a_session_is_created_changed_and_deleted(course: str) -> None:
    made = did(
        course, "session create s --course alg --from 2026-12-01T08:00:00Z --until 2026-12-01T09:00:00Z"
    )
    assert made == [["s", "alg", "SCHEDULED", "2026-12-01T08:00:00Z", "2026-12-01T09:00:00Z", "false"]]
    changed = did(course, "session update s --state live --open --until none")
    assert changed == [["s", "alg", "LIVE", "2026-12-01T08:00:00Z", "-", "true"]]
    assert refused(course, "session update s --until 2025-01-01").endswith(
        "--until is not after --from; give a later time"
    )
    unconfirmed = forkserver.run("session", "delete", "s", "--address", course)
    assert unconfirmed.returncode == 1
    assert "Delete session:s with everything in it?" in unconfirmed.stderr
    assert unconfirmed.stderr.endswith(":\nerror: aborted\n")  # the line of the prompt is ended
    assert did(course, "sessions --course alg") == changed
    did(course, "session delete s --yes")
    assert did(course, "sessions --course alg") == []
    assert "session:s does not exist, so nothing is written" in refused(course, "session delete s --yes")


def test_a_resource_is_created_changed_and_deleted(course: str) -> None:
    made = did(course, "resource create material:exam course:alg --owner user:tess --from 2096-01-01")
    assert made == [["material:exam", "course:alg", "user:tess", "PRIVATE", "false"]]
    read = ("user:maya", "read", "material:exam")
    assert not allowed(course, *read)
    assert did(course, "resource update material:exam --published --from none --visibility course") == [
        ["material:exam", "course:alg", "user:tess", "COURSE", "true"]
    ]
    assert allowed(course, *read)
    assert refused(course, "resource update material:exam --from 2096-02-01 --until 2096-01-01").endswith(
        "--until is not after --from; give a later time"
    )
    assert "material:exam exists; update it, or delete it first" in refused(
        course, "resource create material:exam course:alg"
    )
    unconfirmed = forkserver.run("resource", "delete", "material:exam", "--address", course)
    assert (unconfirmed.returncode, "Delete material:exam?" in unconfirmed.stderr) == (1, True)
    did(course, "resource delete material:exam --yes")
    assert not allowed(course, *read)
    assert "material:exam does not exist" in refused(course, "resource update material:exam --locked")


def test_a_suspended_member_is_out_until_she_is_restored(course: str) -> None:
    question = ("user:maya", "read", "notebook:nb")
    did(course, "member add user:maya course:alg auditor")
    assert allowed(course, *question)
    suspended = did(course, "member suspend user:maya course:alg --reason report")
    assert [row[3] for row in suspended] == ["SUSPENDED", "SUSPENDED"]
    assert not allowed(course, *question)
    assert did(course, "member suspend user:maya course:alg") == suspended
    restored = did(course, "member restore user:maya course:alg")
    assert [row[2:6] for row in restored] == [
        ["auditor", "ACTIVE", "-", "-"],
        ["student", "ACTIVE", "-", "2096-07-31T00:00:00Z"],
    ]
    assert allowed(course, *question)


def test_a_suspension_with_an_end_keeps_the_status_and_is_lifted_with_it(course: str) -> None:
    with Client(course) as client:
        client.write([update(MAYA, status=MembershipStatus.COMPLETED)])
    assert "is COMPLETED; suspend it until a time" in refused(course, "member suspend user:maya course:alg")
    for command in ("member suspend user:maya course:alg", "account suspend user:maya"):
        assert "--until `2020-01-01` is in the past" in refused(course, f"{command} --until 2020-01-01")
    (row,) = did(course, "member suspend user:maya course:alg --until 2096-01-01")
    assert (row[3], row[6]) == ("COMPLETED", "2096-01-01T00:00:00Z")
    (row,) = did(course, "member restore user:maya course:alg")
    assert (row[3], row[6]) == ("COMPLETED", "-")


def test_one_of_two_roles_can_be_changed_or_removed(course: str) -> None:
    did(course, "member add user:maya course:alg auditor --status invited")
    rows = did(course, "member update user:maya course:alg student --until none")
    assert [row[2:6] for row in rows] == [["auditor", "INVITED", "-", "-"], ["student", "ACTIVE", "-", "-"]]
    run("member", "remove", "user:maya", "course:alg", "--role", "student", "--address", course)
    with Client(course) as client:
        found = [each.entity.role for each in client.read(MembershipFilter(subject=MAYA.subject))]
    assert found == ["auditor"]
    gone = run("member", "remove", "user:maya", "course:alg", "--address", course)
    assert gone.stdout == "deleted membership user:maya auditor in course:alg\n"
    for command in ("remove", "suspend", "restore"):
        assert refused(course, f"member {command} user:maya course:alg").startswith(
            "user:maya has no membership in course:alg; list them with"
        )


@pytest.mark.parametrize(
    ("command", "deleted"),
    [
        (
            "member remove user:maya course:alg",
            {"subject": "user:maya", "scope": "course:alg", "role": "student"},
        ),
        (
            "member remove user:maya course:alg --everything",
            {"subject": "user:maya", "scope": "course:alg", "everything": True},
        ),
        ("share remove notebook:nb user:lina", {"resource": "notebook:nb", "subject": "user:lina"}),
        ("resource delete notebook:nb --yes", "notebook:nb"),
        ("session delete s --yes", {"id": "s"}),
        ("course delete alg --yes", {"id": "alg"}),
    ],
)
def test_a_deletion_as_json_names_what_it_deleted(course: str, command: str, deleted: object) -> None:
    did(course, "session create s --course alg")
    did(course, "share add notebook:nb user:lina --awaits-membership")
    done = run(*command.split(), "--json", "--address", course)
    assert (done.returncode, done.stderr) == (0, "")
    (line,) = map(json.loads, done.stdout.splitlines())
    named = line.pop("deleted")
    assert line == {}
    if isinstance(named, dict):
        named.pop("kind", None)
    assert named == deleted


def test_one_command_removes_a_person_from_a_course_and_all_that_is_in_it(course: str) -> None:
    did(course, "session create s --course alg --state live")
    did(course, "member add user:maya session:s attendee")
    assert did(course, "member remove user:maya course:alg") == []
    assert [row[1] for row in did(course, "memberships --subject user:maya")] == ["session:s"]
    done = run("member", "remove", "user:maya", "course:alg", "--everything", "--address", course)
    assert (done.returncode, done.stdout) == (0, "removed user:maya from course:alg and all that is in it\n")
    assert did(course, "memberships --subject user:maya") == []
    assert refused(course, "member remove user:maya course:alg --everything --role student") == (
        "--everything takes no `--role`: it removes every role; leave one of them out"
    )


def test_a_share_is_added_raised_and_removed(course: str) -> None:
    did(course, "member add user:lina course:alg student")
    assert not allowed(course, "user:lina", "read", "notebook:nb")
    assert did(course, "share add notebook:nb user:lina") == [["notebook:nb", "user:lina", "VIEWER", "false"]]
    assert allowed(course, "user:lina", "read", "notebook:nb")
    assert did(course, "share add notebook:nb user:lina --level editor") == [
        ["notebook:nb", "user:lina", "EDITOR", "false"]
    ]
    assert "set --awaits-membership" in refused(course, "share add notebook:nb user:zoe")
    assert did(course, "share add notebook:nb user:zoe --awaits-membership") == [
        ["notebook:nb", "user:zoe", "VIEWER", "true"]
    ]
    did(course, "share remove notebook:nb user:zoe")
    assert did(course, "shares --subject user:lina") == did(course, "shares --resource notebook:nb")
    did(course, "share remove notebook:nb user:lina")
    assert did(course, "shares") == []
    assert "does not exist, so nothing is written" in refused(course, "share remove notebook:nb user:lina")


def test_a_suspended_account_has_no_role_until_it_is_restored(course: str) -> None:
    (row,) = did(course, "account suspend user:maya --until 2096-01-01 --reason fraud")
    assert row == ["user:maya", "SUSPENDED", "2096-01-01T00:00:00Z"]
    assert not allowed(course, "user:maya", "read", "notebook:nb")
    assert did(course, "account restore user:maya") == [["user:maya", "ACTIVE", "-"]]
    assert allowed(course, "user:maya", "read", "notebook:nb")
    assert "the account of user:nobody was never suspended" in refused(course, "account restore user:nobody")


def test_a_suspension_until_a_time_shortens_none_without_an_end(course: str) -> None:
    did(course, "member suspend user:maya course:alg")
    (row,) = did(course, "member suspend user:maya course:alg --until 2096-01-01")
    assert (row[3], row[6]) == ("SUSPENDED", "2096-01-01T00:00:00Z")
    did(course, "account suspend user:maya")
    assert refused(course, "account suspend user:maya --until 2096-01-01") == (
        "the account of user:maya is suspended without an end, which `--until` would shorten; leave it so,"
        " or end that first with `authz account restore user:maya`"
    )
    assert did(course, "accounts --subject user:maya") == [["user:maya", "SUSPENDED", "-"]]
    did(course, "account restore user:maya")
    did(course, "account suspend user:maya --until 2096-01-01")
    assert did(course, "account suspend user:maya") == [["user:maya", "SUSPENDED", "-"]]


def test_a_malformed_argument_is_named_with_its_remedy(course: str) -> None:
    for command, message in (
        ("member add maya course:alg student", "subject `maya` has no type; write it like `user:maya`"),
        ("member add user:maya alg student", "scope `alg` has no type; write it like `course:algebra-1`"),
        ("member add user:m course:alg studnt", "unknown role `studnt`; did you mean `student`?"),
        ("member add user:m course:alg student --until 2020-01-01", "is in the past, so this would have no"),
        ("member add user:m course:alg student --until soon", "--until `soon` is not a time"),
        ("member add user:m course:alg student --from x", "--from `x` is not a time"),
        ("share add course:alg user:maya", "a course is not shared; add a membership in the course instead"),
        ("share add session:s user:maya", "a session is not shared; add a membership in the session instead"),
        ("share add api:authz user:maya", "`api` is the type of the API itself; a resource has another one"),
        ("resource create api:authz course:alg", "`api` is the type of the API itself; a resource has"),
        ("resource create session:s course:alg", "a session is not registered as a resource; write it as a"),
        ("share add nb user:maya", "resource `nb` has no type; write it like `notebook:nb-7`"),
    ):
        assert message in refused(course, command)


def test_the_reason_of_a_command_is_in_the_change_log(course: str) -> None:
    with Client(course) as client:
        token = client.current_token()
        did(course, "course update alg --ai --reason agreed")
        changes = client.watch(after=token)
        assert next(changes).reason == "agreed"
        changes.close()


def test_a_database_is_made_by_the_command_that_creates_a_course(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'new.db'}"
    assert run("course", "create", "alg", "--database", url).returncode == 0
    assert run("courses", "--database", url).stdout == "id   state  ai_enabled\nalg  DRAFT  false\n"
