"""What a caller gives to a client: text and parsed values alike; what is neither is named before any call."""

from __future__ import annotations

import collections
import datetime as dt
import inspect
from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any

import pytest
from sqlalchemy import null

from authz.client import (
    AuthzError,
    CallError,
    Client,
    DecisionCache,
    InvalidArgumentError,
    ResourcePlan,
    SessionAccess,
    check_request,
)
from authz.client.daily import meeting_token_properties
from authz.client.drafts import Draft
from authz.client.questions import answer_of
from authz.client.sql import where
from authz.domain.entities import Course, CourseFilter, CourseKey, RetainedData
from authz.domain.ids import course_scope
from authz.domain.lists import PlanKind
from authz.domain.mutations import Mutation, Operation
from authz.testing.service import ServiceUnderTest
from authz.v1.authorization_pb2 import CheckResponse

NOBODY = "127.0.0.1:1"
TERM_ENDS = dt.datetime(2100, 7, 1, tzinfo=dt.UTC)
DRAFT = Draft(id="d", base_number=1, etag="e", author="", created_at=None, edited_at=None)
USABLE: dict[str, Any] = {
    "subject": "user:maya",
    "caller": "service:app",
    "to": "user:nadia",
    "action": "read",
    "resource": "notebook:nb-7",
    "question": check_request("user:maya", "read", "notebook:nb-7"),
    "requests": [check_request("user:maya", "read", "notebook:nb-7")],
    "resources": ["notebook:nb-7"],
    "sources": ["notebook:nb-7"],
    "types": "notebook",
    "type_name": "notebook",
    "scope": "course:algebra",
    "session_id": "monday",
    "mutations": [Mutation(Operation.CREATE, Course(id="algebra"))],
    "key": CourseKey("algebra"),
    "wanted": CourseFilter(),
    "ends_at": TERM_ENDS,
    "at": TERM_ENDS,
    "token_id": "t",
    "name": "m",
    "reason": "because",
    "files": {"default.csv": ""},
    "policy": 1,
    "candidate": 1,
    "number": 1,
    "draft_id": "d",
    "draft": DRAFT,
    "tree_size": 1,
    "first_size": 1,
    "second_size": 1,
    "data": RetainedData.TOMBSTONES,
    "days": 1,
}
"""A usable value of each argument without a default, by name."""
USED_LATER = ("progress", "on_checkpoint", "on_unlisted", "resume_for_s")
"""Arguments that are not sent; Python refuses them when they are used."""


def arguments() -> Iterator[Any]:
    """Each argument of each method of a client that is not a flag."""
    client = Client(NOBODY)
    for face in ("", "policies", "policies.drafts", "policies.shadow", "privacy", "audit"):
        of = client
        for part in face.split(".") if face else ():
            of = getattr(of, part)
        for name, method in inspect.getmembers(of, inspect.ismethod):
            if name.startswith("_") or name in ("close", "with_options"):
                continue
            for each in inspect.signature(method).parameters.values():
                is_flag = "bool" in str(each.annotation)
                if not is_flag and each.kind is not each.VAR_KEYWORD and each.name not in USED_LATER:
                    label = f"{face}.{name}".lstrip(".")
                    yield pytest.param(label, each.name, id=f"{label}-{each.name}")
    client.close()


def called(method: Callable[..., Any], changed: str, value: object) -> None:
    """Call a method with usable arguments but one, and read the first of its answers."""
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for each in inspect.signature(method).parameters.values():
        given = value if each.name == changed else USABLE.get(each.name)
        if each.kind is each.VAR_KEYWORD or (each.name != changed and each.default is not each.empty):
            continue
        if each.kind is each.KEYWORD_ONLY:
            named[each.name] = given
        else:
            positional.append(given)
    answer = method(*positional, **named)
    if isinstance(answer, Iterator):
        next(answer, None)


@pytest.mark.parametrize("value", [object(), "\ud800", 10**400], ids=["object", "half of a pair", "large"])
@pytest.mark.parametrize(("method", "argument"), [*arguments()])
def test_an_argument_that_cannot_be_sent_is_named_and_nothing_is_called(
    method: str, argument: str, value: object
) -> None:
    with Client(NOBODY, timeout_s=0.5) as client, pytest.raises(InvalidArgumentError):
        called(attrgetter(method)(client), argument, value)


def test_each_time_may_be_an_instant_for_type_checkers_too() -> None:
    calls: list[Any] = [where, meeting_token_properties, ServiceUnderTest.set_time]
    with Client(NOBODY) as client:
        for of in (client, client.policies.drafts, client.policies.shadow, client.audit):
            calls += [method for name, method in inspect.getmembers(of, inspect.ismethod) if name[0] != "_"]
    times = [
        (call.__qualname__, str(each.annotation))
        for call in calls
        for each in inspect.signature(call).parameters.values()
        if "dt.datetime" in str(each.annotation)
    ]
    assert len(times) > 8
    assert [each for each in times if "Instant" not in each[1]] == []


def test_of_two_subjects_the_malformed_one_is_named() -> None:
    with Client(NOBODY, timeout_s=0.5) as client:
        with pytest.raises(InvalidArgumentError, match=r"^to "):
            client.privacy.rename("user:maya", "maya", reason="typo")
        with pytest.raises(InvalidArgumentError, match=r"^resources_to "):
            client.privacy.erase("user:maya", reason="left", resources_to="stu")


@pytest.mark.parametrize(
    ("method", "argument"),
    [
        ("apply", "files"),
        ("validation", "files"),
        ("diff", "before"),
        ("diff", "after"),
        ("preview", "policy"),
    ],
)
def test_a_policy_without_files_is_not_taken_for_the_active_one(method: str, argument: str) -> None:
    """As that of a draft that was listed or edited: only a read has the files."""
    with (
        Client(NOBODY, timeout_s=0.5) as client,
        pytest.raises(InvalidArgumentError, match="files is empty; read the version or the draft first"),
    ):
        called(getattr(client.policies, method), argument, DRAFT.files)


def test_an_empty_person_is_not_taken_for_nobody() -> None:
    """The call would have all rights of its caller."""
    with pytest.raises(InvalidArgumentError, match="acting_for"):
        Client(NOBODY, acting_for="")
    with Client(NOBODY) as client, pytest.raises(InvalidArgumentError, match="acting_for"):
        client.with_options(acting_for="")


def test_a_call_is_made_for_a_person_alone() -> None:
    with pytest.raises(
        InvalidArgumentError, match="acting_for is `service:x`, which is no person; name `user:<id>`"
    ):
        Client(NOBODY, acting_for="service:x")


STATED = [
    each
    for each in arguments()
    if each.values[1] in {"course_id", "session_id"} and each.values[0] != "authorize_session"  # needs one
]


@pytest.mark.parametrize(("method", "argument"), STATED)
def test_an_empty_course_or_session_is_not_taken_for_none(method: str, argument: str) -> None:
    """As a field of a request that its sender left out. A rollback would be of the policy of the platform
    instead of that of a course."""
    with (
        Client(NOBODY, timeout_s=0.5) as client,
        pytest.raises(InvalidArgumentError, match=f"{argument} is empty") as caught,
    ):
        called(attrgetter(method)(client), argument, "")
    assert caught.value.reason == "MALFORMED_ID"


@pytest.mark.parametrize(
    ("name", "asked"),
    [("list_resources", ("user:maya", "read")), ("plan_resources", ("user:maya", "read", "notebook"))],
)
def test_an_empty_scope_is_not_taken_for_everywhere(name: str, asked: tuple[str, ...]) -> None:
    with (
        Client(NOBODY, timeout_s=0.5) as client,
        pytest.raises(InvalidArgumentError, match="scope `` has no type"),
    ):
        collections.deque(getattr(client, name)(*asked, scope=""), maxlen=0)


ACCESS = SessionAccess(
    subject="user:maya",
    session_id="monday",
    course_id="",
    join=answer_of(CheckResponse(allowed=True)),
    may_present=False,
    may_moderate=False,
    may_record=False,
    ends_at=None,
    valid_until=None,
)
PLAN = ResourcePlan(
    type="notebook", kind=PlanKind.NEVER, groups=(), checked_at="", policy_version="1", valid_until=None
)
CONVERSIONS: dict[Callable[..., Any], dict[str, Any]] = {
    where: {"plan": PLAN, "now": TERM_ENDS, "course_id": null()},
    meeting_token_properties: {
        "access": ACCESS,
        "room": "r",
        "now": TERM_ENDS,
        "max_lifetime": dt.timedelta(hours=1),
    },
}
"""What makes something of an answer of a client, with usable arguments."""


@pytest.mark.parametrize(
    ("convert", "argument"),
    [
        pytest.param(convert, name, id=f"{convert.__name__}-{name}")
        for convert, arguments in CONVERSIONS.items()
        for name in arguments
    ],
)
@pytest.mark.parametrize("given", [object(), 3.5, b"text", dt.date(2100, 7, 1)])
def test_an_answer_of_another_type_is_named(
    convert: Callable[..., Any], argument: str, given: object
) -> None:
    usable = CONVERSIONS[convert]
    assert convert(**usable) is not None
    with pytest.raises(InvalidArgumentError, match=f"^{argument} is `"):
        convert(**{**usable, argument: given})


@pytest.mark.parametrize(
    "arguments",
    [
        {"target": None},
        {"target": ""},
        {"target": "http://127.0.0.1:50051"},
        {"target": "127.0.0.1"},
        {"target": "localhost:"},
        {"target": "::1"},
        {"target": "[::1]"},
        {"timeout_s": "1"},
        {"timeout_s": 0},
        {"timeout_s": float("inf")},
        {"timeout_s": 1e300},
        {"hedge_after_s": -1},
        {"acting_for": "maya"},
        {"cache": True},
        {"use_proxy": "no"},
        {"token": ""},
        {"token_file": ""},
        {"token": "", "token_file": "token"},
        {"tls_ca_file": ""},
        {"tls_ca_file": "ca.pem", "tls_certificate_file": "", "tls_key_file": ""},
        {"token": b"secret"},
        {"token": "one two"},
        {"token_file": 3},
        {"tls_ca_file": 3},
        {"tls_ca_file": "nowhere.pem"},
        {"tls_key_file": "key.pem"},
    ],
)
def test_a_client_that_could_not_call_is_not_made(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        Client(**{"target": NOBODY, **arguments})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"max_entries": 0},
        {"max_entries": 1.5},
        {"max_staleness_s": "5"},
        {"max_staleness_s": 0.1},
        {"max_staleness_s": float("nan")},
        {"max_staleness_s": float("inf")},
    ],
)
def test_a_cache_without_a_bound_is_not_made(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match=next(iter(arguments))):
        DecisionCache(**arguments)


def test_a_request_id_that_cannot_be_sent_is_named() -> None:
    with Client(NOBODY) as client, pytest.raises(InvalidArgumentError, match="request_id"):
        client.with_options(request_id="\ud800")


def test_an_argument_of_another_type_says_what_to_give() -> None:
    with Client(NOBODY) as client, pytest.raises(InvalidArgumentError, match=r"^course_id is .*; give text$"):
        client.check("user:maya", "read", "notebook:n", course_id=course_scope("a"))  # type: ignore[arg-type]


def test_every_error_of_a_client_is_of_one_tree() -> None:
    assert issubclass(CallError, AuthzError)
    assert issubclass(InvalidArgumentError, AuthzError)
