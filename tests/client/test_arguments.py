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
    AsyncClient,
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
from authz.domain.entities import (
    Course,
    CourseFilter,
    CourseKey,
    CourseState,
    Membership,
    MembershipKey,
    MembershipStatus,
    Resource,
    RetainedData,
)
from authz.domain.ids import course_scope
from authz.domain.lists import PlanKind
from authz.domain.mutations import Expectation, Mutation, Operation, Precondition
from authz.v1.authorization_pb2 import CheckResponse
from tests.serving import served
from tests.store.directory import user

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
        {"timeout_s": "1"},
        {"timeout_s": 0},
        {"timeout_s": float("inf")},
        {"timeout_s": 1e300},
        {"hedge_after_s": -1},
        {"acting_for": "maya"},
        {"cache": True},
        {"use_proxy": "no"},
        {"token": None},
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


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("given")
    with served(f"sqlite:///{folder / 'authz.db'}", inline_types="message") as found:
        yield found


def test_a_record_may_have_text_and_datetimes(address: str) -> None:
    with Client(address) as client:
        client.write([Mutation(Operation.TOUCH, Course(id="algebra", state="ACTIVE"))])  # type: ignore[arg-type]  # as a caller without types gives it
        maya = Membership(
            subject="user:maya",  # type: ignore[arg-type]
            scope="course:algebra",  # type: ignore[arg-type]
            role="student",
            ends_at=TERM_ENDS,  # type: ignore[arg-type]
        )
        client.write([Mutation(Operation.TOUCH, maya)])
        (found,) = client.read_memberships(subject="user:maya", scope="course:algebra")
        assert found.entity == Membership(
            subject=user("maya"), scope=course_scope("algebra"), role="student", ends_at=4_118_083_200_000_000
        )
        key = MembershipKey("user:maya", "course:algebra", "student")  # type: ignore[arg-type]
        there = Precondition(key, Expectation.EXISTS)
        client.write([Mutation(Operation.DELETE, key)], preconditions=[there])
        client.update(CourseKey("algebra"), state="CONCLUDED", edit_window_us=dt.timedelta(minutes=1))
        (course,) = client.read_courses(ids=["algebra"])
        assert (course.entity.state, course.entity.edit_window_us) == (CourseState.CONCLUDED, 60_000_000)
        changes = client.audit.changes(kinds=["membership"], since=dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
        assert len([*changes]) == 2


def test_a_resource_that_is_not_registered_may_be_described(address: str) -> None:
    with Client(address) as client:
        client.write(
            [
                Mutation(Operation.TOUCH, Course(id="biology", state=CourseState.ACTIVE)),
                Mutation(
                    Operation.TOUCH,
                    Membership(subject=user("omar"), scope=course_scope("biology"), role="student"),
                ),
            ]
        )
        message = Resource(
            type="message",
            id="never-registered",
            scope=course_scope("biology"),
            owner=user("omar"),
            created_at=dt.datetime.now(dt.UTC),  # type: ignore[arg-type]  # as a caller without types gives it
        )
        assert client.check("user:omar", "update", message)
        assert client.check("user:nadia", "read", message).reason == "NOT_A_MEMBER"
        assert client.check("user:omar", "update", message.key).reason == "RESOURCE_UNKNOWN"
        assert client.explain("user:omar", "update", message).answer
        actions = client.list_actions("user:omar", message)
        assert actions["update"]
        assert client.batch_list_actions("user:omar", [message]) == [actions]
        assert [each.subject for each in client.list_subjects("update", message)] == ["user:omar"]
        assert client.authorize_sources("user:omar", [message])[0].resource == "message:never-registered"


def test_a_call_has_the_id_that_the_caller_gives_it_in_logs(address: str) -> None:
    with Client(address) as client:
        logged = client.with_options(request_id="trace-42")
        logged.write([Mutation(Operation.TOUCH, Course(id="chemistry", state=CourseState.ACTIVE))])
        change = next(client.audit.changes(scope="course:chemistry"))
        assert change.request_id == "trace-42"
        with pytest.raises(CallError, match="request_id"):
            client.with_options(request_id="not an id").check("user:maya", "read", "course:algebra")


@pytest.mark.parametrize(
    ("record", "named"),
    [
        (Course(id=7), "course.id is `7`"),  # type: ignore[arg-type]
        (Course(id="a", state="OPEN"), "course.state is `'OPEN'`; give one of DRAFT, ACTIVE"),  # type: ignore[arg-type]
        (Course(id="a", ai_enabled="yes"), "course.ai_enabled is `'yes'`; give true or false"),  # type: ignore[arg-type]
        (
            Membership(subject=user("maya"), scope="algebra", role="student"),  # type: ignore[arg-type]
            "membership.scope `algebra` has no type",
        ),
        (
            Membership(
                subject=user("maya"),
                scope=course_scope("a"),
                role="student",
                status=MembershipStatus.ACTIVE,
                ends_at=dt.datetime(2100, 7, 1),  # type: ignore[arg-type]
            ),
            "membership.ends_at is",
        ),
        ("course:a", "record is `'course:a'`; give an entity or a key"),
    ],
)
def test_a_field_of_another_type_is_named(record: Any, named: str) -> None:
    with Client(NOBODY) as client, pytest.raises(InvalidArgumentError, match=named):
        client.write([Mutation(Operation.CREATE, record)])


COURSE = Course(id="a", state=CourseState.ACTIVE)


@pytest.mark.parametrize(
    ("mutation", "precondition", "told"),
    [
        (Mutation("TUCH", COURSE), None, "operation is `'TUCH'`; give one of CREATE, TOUCH"),  # type: ignore[arg-type]
        (Mutation(Operation.CREATE, COURSE.key), None, "create of course:a carries a key; send the whole"),
        (Mutation(Operation.TOUCH, COURSE.key), None, "touch of course:a carries a key; send the whole"),
        (
            Mutation(Operation.TOUCH, COURSE),
            Precondition(COURSE.key, "EXIST"),  # type: ignore[arg-type]
            "expectation is `'EXIST'`; give one of EXISTS",
        ),
    ],
)
def test_a_write_that_says_less_than_it_must_is_named(
    mutation: Mutation, precondition: Precondition | None, told: str
) -> None:
    preconditions = [] if precondition is None else [precondition]
    with Client(NOBODY) as client, pytest.raises(InvalidArgumentError, match=told):
        client.write([mutation], preconditions=preconditions)


def test_an_argument_of_another_type_says_what_to_give() -> None:
    with Client(NOBODY) as client, pytest.raises(InvalidArgumentError, match=r"^course_id is .*; give text$"):
        client.check("user:maya", "read", "notebook:n", course_id=course_scope("a"))  # type: ignore[arg-type]


def test_a_write_may_name_its_operation_and_its_expectation_by_text(address: str) -> None:
    expected: Any = Precondition(CourseKey("named"), "NOT_EXISTS")  # type: ignore[arg-type]
    named: Any = Mutation("CREATE", Course(id="named"))  # type: ignore[arg-type]
    with Client(address) as client:
        assert client.write([named], preconditions=[expected])


async def test_an_import_that_reaches_no_server_fails_like_any_call() -> None:
    mutations = [Mutation(Operation.TOUCH, Course(id="algebra", state=CourseState.ACTIVE))]
    for given in ([], mutations):
        async with AsyncClient(NOBODY) as client:
            with pytest.raises(CallError, match="failed to connect"):
                await client.import_mutations(given)
        with Client(NOBODY) as blocking, pytest.raises(CallError, match="failed to connect"):
            blocking.import_mutations(given)


async def test_an_import_raises_what_its_mutations_raise(address: str) -> None:
    def broken() -> Iterator[Mutation]:
        yield Mutation(Operation.TOUCH, Course(id="poetry", state=CourseState.ACTIVE))
        raise FileNotFoundError("roster.csv")

    with Client(address) as blocking, pytest.raises(FileNotFoundError, match="roster"):
        blocking.import_mutations(broken())
    async with AsyncClient(address) as client:
        with pytest.raises(FileNotFoundError, match="roster"):
            await client.import_mutations(broken())


def test_every_error_of_a_client_is_of_one_tree() -> None:
    assert issubclass(CallError, AuthzError)
    assert issubclass(InvalidArgumentError, AuthzError)
