"""The Python client against a real service."""

from __future__ import annotations

import datetime as dt
import warnings
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import grpc
import msgspec
import pytest

from authz.client import (
    Answer,
    BareTouchWarning,
    CallError,
    Client,
    ItemFault,
    ResourceActions,
    check_request,
    update,
)
from authz.domain.entities import (
    KINDS,
    AccessToken,
    AccessTokenFilter,
    Account,
    AccountFilter,
    AccountStatus,
    Course,
    CourseFilter,
    CourseKey,
    CourseState,
    Entity,
    Kind,
    Membership,
    MembershipFilter,
    MembershipStatus,
    Resource,
    ResourceFilter,
    Session,
    SessionFilter,
    Share,
    ShareFilter,
    ShareLevel,
    Versioned,
)
from authz.domain.errors import InvalidArgumentError
from authz.domain.ids import ResourceRef, course_scope, parse_subject
from authz.domain.mutations import Expectation, Mutation, Operation, Precondition
from tests.client.conftest import Connect
from tests.serving import served
from tests.tokens import moved, state_of

ALGEBRA = course_scope("alg")
MAYA = parse_subject("user:maya")
NOTEBOOK = Resource(type="notebook", id="nb-7", scope=ALGEBRA, owner=MAYA, created_at=1_700_000_000_000_001)
CAMPUS = (
    Course(id="alg", state=CourseState.ACTIVE, ai_enabled=True, edit_window_us=1_500_000),
    Session(id="s1", course_id="alg", starts_at=1, ends_at=2, open_to_course=True),
    Membership(subject=MAYA, scope=ALGEBRA, role="student", ends_at=4_000_000_000_000_000, source="x"),
    Membership(
        subject=parse_subject("user:omar"), scope=ALGEBRA, role="student", status=MembershipStatus.SUSPENDED
    ),
    NOTEBOOK,
    Share(
        resource=NOTEBOOK.key,
        subject=parse_subject("service:tutor"),
        level=ShareLevel.EDITOR,
        awaits_membership=True,
    ),
)
ACCOUNTS = (
    Account(subject=MAYA),
    Account(subject=parse_subject("user:omar"), status=AccountStatus.SUSPENDED, suspended_until=7_000_000),
)
TOKENS = (
    AccessToken(id="t1", subject=parse_subject("service:tutor"), digest="0" * 64, ends_at=7_000_000),
    AccessToken(id="t2", subject=parse_subject("service:sync"), digest="1" * 64, ends_at=7_000_000),
)


@pytest.fixture
def client(sqlite_url: str, connect: Connect) -> Iterator[Client]:
    """A client of a service that holds a campus."""
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


def test_an_allowed_answer_is_true_and_names_its_rule(client: Client) -> None:
    answer = client.check("user:maya", "read", "notebook:nb-7", course_id="alg")
    assert answer
    assert (answer.allowed, answer.reason) == (True, "ROLE_GRANT")
    assert answer.rule.startswith("p, student, *, notebook, read, own, allow (default.csv:")
    assert answer.valid_until == dt.datetime(2096, 10, 2, 7, 6, 40, tzinfo=dt.UTC)


def test_a_denied_answer_is_false(client: Client) -> None:
    stranger = client.check("user:teacher", "read", "notebook:nb-7")
    assert not stranger
    assert (stranger.reason, stranger.rule) == ("NOT_A_MEMBER", "")
    suspended = client.check("user:omar", "read", "notebook:nb-7")
    assert not suspended
    assert suspended.inactive_reason == "SUSPENDED"
    mismatch = client.check("user:maya", "read", "notebook:nb-7", course_id="poetry")
    assert not mismatch
    assert mismatch.reason == "SCOPE_MISMATCH"


def test_a_batch_of_any_size_is_put_together_again(client: Client) -> None:
    names = [f"notebook:{'nb-7' if number % 3 else 'none'}" for number in range(2001)]
    expected = ["ROLE_GRANT" if number % 3 else "RESOURCE_UNKNOWN" for number in range(2001)]
    checked = client.batch_check([check_request("user:maya", "read", name) for name in names])
    assert [each.reason for each in checked] == expected
    actions = client.batch_list_actions("user:maya", names)
    assert [isinstance(each, ResourceActions) and each["read"].allowed for each in actions] == [
        reason == "ROLE_GRANT" for reason in expected
    ]
    sources = client.authorize_sources("user:maya", names)
    assert [each.resource for each in sources] == names
    assert client.batch_check([]) == []


def test_a_batch_answers_in_order_and_a_bad_question_is_false(client: Client) -> None:
    results = client.batch_check(
        [
            check_request("user:maya", "read", "notebook:nb-7"),
            check_request("user:maya", "raed", "notebook:nb-7"),
            check_request("user:omar", "read", "notebook:nb-7"),
        ]
    )
    assert [bool(result) for result in results] == [True, False, False]
    assert [result.allowed for result in results] == [True, False, False]
    assert isinstance(results[1], ItemFault)
    assert results[1].reason == "UNKNOWN_ACTION"
    assert "did you mean `read`?" in results[1].message
    assert isinstance(results[2], Answer)


def test_actions_are_listed_with_their_answers(client: Client) -> None:
    actions = client.list_actions("user:maya", "notebook:nb-7")
    assert (actions["read"].allowed, actions["read"].reason) == (True, "ROLE_GRANT")
    assert (bool(actions["ai_process"]), actions["ai_process"].reason) == (False, "CONDITION_NOT_MET")
    assert bool(actions)
    answer = client.check("user:maya", "read", "notebook:nb-7")
    assert (actions.policy_version, actions.checked_at, actions.valid_until) == (
        answer.policy_version,
        answer.checked_at,
        answer.valid_until,
    )
    stranger = client.list_actions("user:nobody", "notebook:nb-7")
    assert not stranger
    assert {each.reason for each in stranger.actions.values()} == {"NOT_A_MEMBER"}
    with pytest.raises(KeyError):
        stranger["raed"]
    assert client.list_actions("user:maya", "notebook", course_id="alg")["create"]


def test_errors_carry_status_reason_and_message(client: Client) -> None:
    with pytest.raises(CallError, match="did you mean `read`") as unknown:
        client.check("user:maya", "raed", "notebook:nb-7")
    assert (unknown.value.code, unknown.value.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_ACTION")
    with pytest.raises(CallError) as exists:
        client.write([Mutation(Operation.CREATE, CAMPUS[0])])
    assert (exists.value.code, exists.value.reason) == (grpc.StatusCode.ALREADY_EXISTS, "ENTITY_EXISTS")


@pytest.mark.parametrize("subject", ["maya", "user:", "role:teacher", "user:a b", ""])
def test_a_malformed_subject_never_leaves_the_client(client: Client, subject: str) -> None:
    with pytest.raises(InvalidArgumentError):
        client.check(subject, "read", "notebook:nb-7")


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


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS.values() if not kind.service], ids=lambda kind: kind.name
)
def test_each_kind_has_a_call_that_reads_it_by_the_fields_of_its_filter(client: Client, kind: Kind) -> None:
    client.write([Mutation(Operation.TOUCH, Session(id="of-algebra", course_id=ALGEBRA.id))])
    by_name = getattr(client, f"read_{kind.plural}")
    everything = list(client.read(kind.filter_type()))
    assert everything
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


def test_a_state_that_does_not_come_in_time_is_told_as_such(sqlite_url: str, connect: Connect) -> None:
    with served(sqlite_url, freshness_timeout_s="0.05") as address, connect(address, timeout_s=30) as client:
        ahead = moved(sqlite_url, client.current_token(), 1)
        with pytest.raises(CallError) as caught:
            client.check("user:maya", "read", "notebook:nb-7", at_least_as_fresh=ahead)
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.UNAVAILABLE, "NOT_FRESH_ENOUGH")


def test_every_question_may_say_how_fresh(client: Client) -> None:
    token = client.write([Mutation(Operation.TOUCH, Course(id="new"))])
    ask = check_request("user:maya", "read", "notebook:nb-7")
    freshness: tuple[dict[str, Any], ...] = ({"at_least_as_fresh": token}, {"fully_consistent": True})
    for fresh in freshness:
        answer = client.check("user:maya", "read", "notebook:nb-7", **fresh)
        assert answer.checked_at == token
        (batched,) = client.batch_check([ask], **fresh)
        assert isinstance(batched, Answer)
        assert batched.checked_at == token
        assert client.list_actions("user:maya", "notebook:nb-7", **fresh)["read"]
    with pytest.raises(InvalidArgumentError, match="set one of them"):
        client.check("user:maya", "read", "notebook:nb-7", at_least_as_fresh=token, fully_consistent=True)


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
        assert state_of(token).revision == 1
        told = [record.levelname for record in caplog.records if record.name == "authz.client"]
        assert told == ["WARNING"]
        assert "checks there are refused until it has" in caplog.text
        assert not client.import_mutations([Mutation(Operation.TOUCH, Course(id="d"))]).replicated


def test_it_does_not_warn_of_a_write_that_is_in_effect(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    client.write([Mutation(Operation.CREATE, Course(id="d"))])
    assert client.import_mutations([Mutation(Operation.TOUCH, Course(id="e"))]).replicated
    assert not caplog.records


def test_lists_give_what_check_allows_across_pages(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("sync", "aio"):
        monkeypatch.setattr(f"authz.client.{kind}.questions._PAGE_SIZE", 2)
    client.write(
        [
            Mutation(Operation.CREATE, Resource(type="message", id=f"m{n}", scope=ALGEBRA, owner=MAYA))
            for n in range(5)
        ]
    )
    found = list(client.list_resources("user:maya", "read", "message", "notebook"))
    assert [each.resource for each in found] == [*(f"message:m{n}" for n in range(5)), "notebook:nb-7"]
    assert {(each.course_id, each.session_id) for each in found} == {("alg", "")}
    assert list(client.list_resources("user:maya", "read", "message", scope="session:s1")) == []
    who = list(client.list_subjects("read", "message:m1", fully_consistent=True))
    assert [(each.subject, each.role, each.scope) for each in who] == [("user:maya", "student", "course:alg")]
    assert who[0].rule.startswith("p, student, *, message, read, own, allow")
    why: list[str] = []
    assert list(client.list_subjects("read", "message:m7", on_unlisted=why.append)) == []
    assert list(client.list_subjects("read", "message:m1", session_id="s1", on_unlisted=why.append)) == []
    assert list(client.list_subjects("moderate", "message:m1", on_unlisted=why.append)) == []
    lost = list(client.list_resources("user:maya", "read", scope="course:al", on_unlisted=why.append))
    assert (lost, why) == ([], ["RESOURCE_UNKNOWN", "SCOPE_MISMATCH", "RESOURCE_UNKNOWN"])
    assert all(client.check("user:maya", "read", each.resource) for each in found)


def test_listed_items_say_for_which_state_and_until_when_their_page_is_exact(client: Client) -> None:
    (course,) = client.list_resources("user:maya", "read", "course")
    (maya,) = client.list_subjects("read", "course:alg")
    answer = client.check("user:maya", "read", "course:alg")
    for each in (course, maya):
        assert (each.checked_at, each.policy_version, each.valid_until) == (
            answer.checked_at,
            answer.policy_version,
            dt.datetime(2096, 10, 2, 7, 6, 40, tzinfo=dt.UTC),
        )


def test_the_actions_of_many_resources_come_in_their_order(client: Client) -> None:
    names = ["notebook:nb-7", "quizz:q", "course:alg"]
    notebook, fault, course = client.batch_list_actions("user:maya", names)
    assert notebook == client.list_actions("user:maya", names[0])
    assert isinstance(fault, ItemFault)
    assert course == client.list_actions("user:maya", names[2])


def test_an_explanation_tells_why_and_what_would_allow(client: Client) -> None:
    told = client.explain("user:omar", "read", "notebook:nb-7")
    assert not told
    assert told.answer == msgspec.structs.replace(
        client.check("user:omar", "read", "notebook:nb-7"), decision_id=told.answer.decision_id
    )
    assert [(held.role, held.status, held.gives, held.inactive_reason) for held in told.memberships] == [
        ("student", "SUSPENDED", "", "SUSPENDED")
    ]
    assert told.message == "Your participation is suspended."
    assert told.nearest_grants
    allowed = client.explain("user:maya", "read", "notebook:nb-7")
    assert allowed
    assert (allowed.nearest_grants, allowed.allowed_from) == ((), None)
    assert {fact.name for fact in allowed.facts if fact.holds} >= {"own"}
    later = client.explain("user:maya", "read", "notebook:nb-7", as_of=dt.datetime(2097, 1, 1, tzinfo=dt.UTC))
    assert later.answer.inactive_reason == "ENDED"
