"""Reads, writes and imports of the Python client against a real service."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import closing

import grpc
import msgspec
import pytest

from authz.client import BareTouchWarning, CallError, Client, update
from authz.domain.entities import (
    KINDS,
    AccessTokenFilter,
    Account,
    AccountFilter,
    AccountStatus,
    Course,
    CourseFilter,
    CourseKey,
    CourseState,
    Entity,
    Membership,
    MembershipFilter,
    MembershipStatus,
    Resource,
    ResourceFilter,
    Session,
    SessionFilter,
    ShareFilter,
    Versioned,
)
from authz.domain.errors import InvalidArgumentError
from authz.domain.ids import ResourceRef, course_scope, parse_subject
from authz.domain.mutations import Expectation, Mutation, Operation, Precondition
from tests.client.conftest import Connect
from tests.client.test_client import ACCOUNTS, ALGEBRA, CAMPUS, MAYA, NOTEBOOK, TOKENS
from tests.policies import with_rows
from tests.serving import served
from tests.tokens import state_of


@pytest.fixture
def client(sqlite_url: str, connect: Connect) -> Iterator[Client]:
    """A client of a service that holds a campus, which a test may change."""
    with served(sqlite_url) as address, connect(address) as client:
        client.write([Mutation(Operation.CREATE, entity) for entity in (*CAMPUS, *ACCOUNTS, *TOKENS)])
        yield client


def test_what_was_written_is_read_as_it_was(client: Client) -> None:
    found: tuple[Versioned[Entity], ...] = (
        *client.read(CourseFilter()),
        *client.read(SessionFilter()),
        *client.read(MembershipFilter()),
        *client.read(ResourceFilter()),
        *client.read(ShareFilter()),
        *client.read(AccountFilter()),
        *client.read(AccessTokenFilter()),
    )
    assert [versioned.entity for versioned in found] == [*CAMPUS, *ACCOUNTS, *TOKENS]
    assert {versioned.revision for versioned in found} == {2}  # the first revision is that of the policy


def test_reads_turn_their_pages_and_filter(client: Client) -> None:
    people = [
        Membership(subject=parse_subject(f"user:u{n:04}"), scope=ALGEBRA, role="auditor") for n in range(2300)
    ]
    sent: list[int] = []
    outcome = client.import_mutations(
        (Mutation(Operation.TOUCH, person) for person in people), progress=sent.append
    )
    assert (outcome.written, outcome.unchanged, outcome.failed) == (2300, 0, 0)
    assert sent == [1000, 2000, 2300]
    assert [m.entity for m in client.read(MembershipFilter(role="auditor"))] == people
    suspended = client.read(MembershipFilter(statuses=(MembershipStatus.SUSPENDED,)))
    assert [str(m.entity.subject) for m in suspended] == ["user:omar"]
    accounts = client.read(AccountFilter(statuses=(AccountStatus.SUSPENDED,)))
    assert [str(a.entity.subject) for a in accounts] == ["user:omar"]
    assert [a.entity for a in client.read(AccountFilter(subject=MAYA))] == [Account(subject=MAYA)]


def test_each_kind_has_a_call_that_reads_it_by_the_fields_of_its_filter(client: Client) -> None:
    client.write([Mutation(Operation.TOUCH, Session(id="of-algebra", course_id=ALGEBRA.id))])
    for kind in (each for each in KINDS.values() if not each.service):
        by_name = getattr(client, f"read_{kind.plural}")
        everything = list(client.read(kind.filter_type()))
        assert everything, kind.name
        assert list(by_name()) == everything
        first = everything[0].entity
        asked, of = next(pair for pair in kind.filters if getattr(first, pair[1].name))
        value = getattr(first, of.name)
        wanted = {asked.name: (value,) if asked.is_many else value}
        assert list(by_name(**wanted)) == list(client.read(kind.filter_type(**wanted)))


def test_an_import_reports_faults_by_their_place_and_takes_the_rest(client: Client) -> None:
    outcome = client.import_mutations(
        [
            Mutation(Operation.TOUCH, Resource(type="notebook", id="a", scope=course_scope("nowhere"))),
            Mutation(Operation.TOUCH, Resource(type="notebook", id="b", scope=ALGEBRA)),
            Mutation(Operation.DELETE, ResourceRef("notebook", "never-there")),
        ]
    )
    assert (outcome.written, outcome.unchanged, outcome.failed) == (1, 1, 1)
    assert [(fault.position, fault.reason) for fault in outcome.faults] == [(0, "REFERENCE_NOT_FOUND")]


def test_an_import_that_is_refused_while_it_is_sent_fails_with_the_reason(client: Client) -> None:
    people = (
        Membership(subject=parse_subject(f"user:u{n}"), scope=ALGEBRA, role="auditor") for n in range(20_000)
    )
    with pytest.raises(CallError, match="at most 1024") as caught:
        client.import_mutations((Mutation(Operation.TOUCH, each) for each in people), reason="x" * 2000)
    assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT


def test_a_write_is_made_if_its_preconditions_hold(client: Client) -> None:
    (course,) = client.read(CourseFilter(ids=("alg",)))
    now = Precondition(course.entity.key, Expectation.AT_REVISION, course.revision)
    edit = [Mutation(Operation.TOUCH, Course(id="alg", state=CourseState.CONCLUDED))]
    written = client.write(edit, preconditions=[now])
    with pytest.raises(CallError) as caught:
        client.write(edit, preconditions=[now])
    assert caught.value.reason == "PRECONDITION_FAILED"
    as_written = Precondition(course.entity.key, Expectation.AT_REVISION, written.revision)
    ended = [update(CourseKey("alg"), state=CourseState.ARCHIVED)]
    client.write(ended, preconditions=[as_written])
    with pytest.raises(CallError) as caught:
        client.write(ended, preconditions=[as_written])
    assert caught.value.reason == "PRECONDITION_FAILED"
    there, free = (
        Precondition(NOTEBOOK.key, Expectation.EXISTS),
        Precondition(CourseKey("b"), Expectation.NOT_EXISTS),
    )
    client.write([Mutation(Operation.CREATE, Course(id="b"))], preconditions=[there, free])


def test_an_update_changes_what_it_names(client: Client) -> None:
    client.update(CourseKey("alg"), state=CourseState.CONCLUDED, edit_window_us=0, reason="term ends")
    client.write([update(CAMPUS[2].key, ends_at=None), update(NOTEBOOK.key, owner=None, locked=True)])
    assert [each.entity for each in client.read(CourseFilter())] == [
        Course(id="alg", state=CourseState.CONCLUDED, ai_enabled=True, edit_window_us=0)
    ]
    (maya,) = client.read(MembershipFilter(subject=MAYA))
    assert maya.entity == msgspec.structs.replace(CAMPUS[2], ends_at=None)
    (notebook,) = client.read(ResourceFilter())
    assert notebook.entity == msgspec.structs.replace(NOTEBOOK, owner=None, locked=True)
    with pytest.raises(InvalidArgumentError, match="unknown field `staet`; did you mean `state`"):
        client.update(CourseKey("alg"), staet=CourseState.ACTIVE)
    with pytest.raises(CallError) as caught:
        client.update(CourseKey("none"), ai_enabled=True)
    assert caught.value.reason == "PRECONDITION_FAILED"


def test_a_touch_that_gives_only_an_id_warns_of_what_it_resets(client: Client) -> None:
    with pytest.warns(
        BareTouchWarning, match="`course` gives none of state, ai_enabled.*use `update`"
    ) as told:
        warnings.simplefilter("default")
        for id_ in ("alg", "drama"):
            client.write([Mutation(Operation.TOUCH, Course(id=id_))])
    assert len(told) == 1
    if isinstance(client, Client):
        assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        client.write(
            [Mutation(Operation.TOUCH, Course(id="alg", ai_enabled=True)), update(NOTEBOOK.key, locked=True)]
        )
        client.write([Mutation(Operation.CREATE, Course(id="new")), Mutation(Operation.TOUCH, CAMPUS[-1])])


def test_who_reads_and_then_watches_misses_nothing(client: Client) -> None:
    token = client.current_token()
    known = {each.entity.key for each in client.read(CourseFilter())}
    outcome = client.import_mutations([Mutation(Operation.TOUCH, Course(id="late"))])
    with closing(client.watch(after=token)) as changes:
        change = next(changes)
    assert [mutation.key for mutation in change.mutations] == [CourseKey("late")]
    assert CourseKey("late") not in known
    assert outcome.written_at == change.token


def test_it_warns_of_a_write_that_the_replica_has_not_followed(
    sqlite_url: str, caplog: pytest.LogCaptureFixture, connect: Connect
) -> None:
    nobody_follows = {"follow": "false", "replication_timeout_s": "0.1", "log_level": "warning"}
    with served(sqlite_url, **nobody_follows) as address, connect(address) as client:
        token = client.write([Mutation(Operation.CREATE, Course(id="c"))])
        assert (state_of(token).revision, token.replicated) == (1, False)
        told = [record.levelname for record in caplog.records if record.name == "authz.client"]
        assert told == ["WARNING"]
        assert "checks there are refused until it has" in caplog.text
        assert not client.update(CourseKey("c"), ai_enabled=True).replicated
        assert not client.remove_member("user:maya", "course:c").replicated
        assert not client.import_mutations([Mutation(Operation.TOUCH, Course(id="d"))]).replicated


def test_a_policy_that_is_active_already_is_not_in_effect_before_the_replica_has_it(
    sqlite_url: str, caplog: pytest.LogCaptureFixture, connect: Connect
) -> None:
    files = with_rows("p, student, *, message, moderate, locked, deny")
    with served(sqlite_url):
        pass  # the first server stores the first version
    with (
        served(sqlite_url, follow="false", replication_timeout_s="0.1", log_level="warning") as address,
        connect(address) as client,
    ):
        first, again = client.policies.apply(files), client.policies.apply(files)
        assert (first.changed, first.replicated) == (True, False)
        assert (again.changed, again.replicated) == (False, False)
        assert not client.policies.roll_back(again.number).replicated
    warnings = [each for each in caplog.records if each.name == "authz.client"]
    assert len(warnings) == 3


def test_it_does_not_warn_of_a_write_that_is_in_effect(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    assert client.write([Mutation(Operation.CREATE, Course(id="d"))]).replicated
    assert client.remove_member("user:maya", "course:d").replicated
    assert client.import_mutations([Mutation(Operation.TOUCH, Course(id="e"))]).replicated
    assert not caplog.records
