"""The audit trail as both Python clients read it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from authz.audit.table import TableSink
from authz.client import CallError, Client
from authz.domain.entities import Account, Course, CourseKey, CourseState, EntityKind, Membership
from authz.domain.ids import course_scope, parse_subject
from authz.domain.mutations import Mutation, Operation
from tests.client.conftest import Connect
from tests.serving import served
from tests.waiting import until

ALGEBRA = course_scope("alg")
MAYA = Membership(subject=parse_subject("user:maya"), scope=ALGEBRA, role="student")
MANY = 1100
"""More than a page."""


@pytest.fixture
def client(sqlite_url: str, connect: Connect, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A client of a service with a course and a student."""
    monkeypatch.setattr(TableSink, "gather_s", 0.0)
    with served(sqlite_url, decision_log="table") as address, connect(address) as client:
        client.write([Mutation(Operation.CREATE, each) for each in (Course(id="alg"), MAYA)])
        yield client


def test_each_change_has_its_record_before_and_after(client: Client) -> None:
    client.update(CourseKey("alg"), state=CourseState.ACTIVE, reason="the term begins")
    client.write([Mutation(Operation.DELETE, MAYA.key)])
    gone, changed, enrolled, created = client.audit.changes(scope=ALGEBRA)
    assert (gone.before, gone.after) == (MAYA, None)
    assert (changed.before, changed.after) == (Course(id="alg"), Course(id="alg", state=CourseState.ACTIVE))
    assert (changed.actor, changed.reason) == ("unauthenticated", "the term begins")
    assert (enrolled.before, enrolled.after) == (None, MAYA)
    assert (created.after, created.revision) == (Course(id="alg"), 2)
    assert gone.committed_at >= changed.committed_at >= created.committed_at
    assert [*client.audit.changes(subject="user:maya", oldest_first=True)] == [enrolled, gone]
    since = [
        *client.audit.changes(scope="course:alg", since=gone.committed_at, kinds=[EntityKind.MEMBERSHIP])
    ]
    assert gone in since


def test_changes_of_many_pages_are_read_as_one(client: Client) -> None:
    people = [Account(subject=parse_subject(f"user:u{number:04}")) for number in range(MANY)]
    client.import_mutations(Mutation(Operation.CREATE, each) for each in people)
    found = client.audit.changes(kinds=[EntityKind.ACCOUNT], oldest_first=True)
    assert [each.after for each in found] == people


def test_a_refusal_is_an_error_of_the_client(client: Client) -> None:
    with pytest.raises(CallError, match="is not after `since`"):
        list(client.audit.changes(since=2, until=1))


def test_an_answer_is_found_in_the_log_by_whom_and_what_it_was_about(client: Client) -> None:
    answer = client.check("user:maya", "read", "course:alg")
    wanted: dict[str, Any] = {"subject": "user:maya", "resource": "course:alg", "allowed": False}
    until(lambda: [*client.audit.decisions(**wanted)], "the check is not in the decision log")
    (entry,) = client.audit.decisions(**wanted)
    assert (entry.decision_id, entry.reason) == (answer.decision_id, answer.reason)
    assert (entry.subject, entry.action, entry.resource) == ("user:maya", "read", "course:alg")
    assert [*client.audit.decisions(**wanted, oldest_first=True, since=entry.at)] == [entry]
    assert list(client.audit.decisions(**wanted, until=entry.at)) == []
    assert client.audit.logs_to_database()
