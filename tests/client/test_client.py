"""The Python client against a real service."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any

import grpc
import msgspec
import pytest

from authz.client import Answer, CallError, Client, ItemFault, ResourceActions, check_request
from authz.domain.entities import (
    AccessToken,
    Account,
    AccountStatus,
    Course,
    CourseState,
    Membership,
    MembershipStatus,
    Resource,
    Session,
    Share,
    ShareLevel,
)
from authz.domain.errors import InvalidArgumentError
from authz.domain.ids import course_scope, parse_subject
from authz.domain.mutations import Mutation, Operation
from tests.client.conftest import Connect
from tests.serving import served
from tests.tokens import moved

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


@pytest.fixture(scope="module")
def address(shared_sqlite_url: str) -> Iterator[str]:
    """A service that holds a campus. No test changes what another asks for."""
    with served(shared_sqlite_url) as address:
        with Client(address) as client:
            client.write([Mutation(Operation.CREATE, entity) for entity in (*CAMPUS, *ACCOUNTS, *TOKENS)])
        yield address


@pytest.fixture
def client(address: str, connect: Connect) -> Iterator[Client]:
    """A client of each kind in turn."""
    with connect(address) as client:
        yield client


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


def test_a_state_that_does_not_come_in_time_is_told_as_such(sqlite_url: str, connect: Connect) -> None:
    with served(sqlite_url, freshness_timeout_s="0.05") as address, connect(address, timeout_s=30) as client:
        ahead = moved(sqlite_url, client.current_token(), 1)
        with pytest.raises(CallError) as caught:
            client.check("user:maya", "read", "notebook:nb-7", at_least_as_fresh=ahead)
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.UNAVAILABLE, "NOT_FRESH_ENOUGH")


def test_every_question_may_say_how_fresh(client: Client) -> None:
    token = client.write([Mutation(Operation.TOUCH, Course(id=f"of-{type(client).__name__}"))])
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


def test_lists_give_what_check_allows_across_pages(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in ("sync", "aio"):
        monkeypatch.setattr(f"authz.client.{kind}.lists._PAGE_SIZE", 2)
    client.write(
        [
            Mutation(Operation.TOUCH, Resource(type="message", id=f"m{n}", scope=ALGEBRA, owner=MAYA))
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
    nowhere = client.plan_resources("user:maya", "read", "message", scope="course:al")
    unpermitted = client.plan_resources("user:maya", "read", "message", purpose="training")
    assert (nowhere.kind, nowhere.reason) == ("NEVER", "RESOURCE_UNKNOWN")
    assert (unpermitted.kind, unpermitted.reason) == ("NEVER", "PURPOSE_NOT_PERMITTED")
    assert client.plan_resources("user:nobody", "read", "message").reason is None
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
    assert not fault["read"]
    assert fault["read"].reason == "UNKNOWN_TYPE"
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
