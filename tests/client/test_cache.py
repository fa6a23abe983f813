"""Answers that a client keeps: given again while they hold, and never past a change that was reported."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from authz.client import Answer, CallError, Client, DecisionCache, InvalidArgumentError
from authz.domain.entities import (
    Account,
    AccountStatus,
    Course,
    CourseState,
    Entity,
    Membership,
    Resource,
    Session,
    Share,
    ShareLevel,
    Visibility,
)
from authz.domain.ids import PLATFORM, ResourceRef, Subject, course_scope, parse_subject, session_scope
from authz.domain.mutations import Mutation, Operation
from authz.domain.tokens import latest
from authz.policy.load import policy_directory, read_folder
from tests.callers import grant
from tests.client.conftest import Connect
from tests.databases import create_sqlite
from tests.issuer import Issuer
from tests.serving import served
from tests.waiting import until

ALGEBRA, MONDAY = course_scope("algebra"), session_scope("monday")
MAYA, OMAR = parse_subject("user:maya"), parse_subject("user:omar")
STUDENT = Membership(subject=MAYA, scope=ALGEBRA, role="student")
NOTEBOOK = Resource(type="notebook", id="nb-7", scope=ALGEBRA, owner=OMAR, visibility=Visibility.COURSE)
NOTE = Resource(type="session_note", id="n-1", scope=MONDAY, visibility=Visibility.SESSION)
CAMPUS: tuple[Entity, ...] = (
    Course(id="algebra", state=CourseState.ACTIVE),
    Session(id="monday", course_id="algebra", open_to_course=True),
    STUDENT,
    Membership(subject=OMAR, scope=ALGEBRA, role="student"),
    NOTEBOOK,
    Resource(type="notebook", id="private", scope=ALGEBRA, owner=OMAR),
    NOTE,
)
READS = ("user:maya", "read", "notebook:nb-7")
TIMEOUT_S = 30.0


@pytest.fixture(scope="module")
def server(shared_sqlite_url: str) -> Iterator[str]:
    """The address of a service for all tests, each of which puts the campus back."""
    with served(shared_sqlite_url) as address:
        yield address


@pytest.fixture
def writer(server: str) -> Iterator[Client]:
    """Somebody else, who changes the campus."""
    with Client(server) as client:
        client.write([Mutation(Operation.TOUCH, each) for each in CAMPUS])
        yield client


def cache_of(max_staleness_s: float = 3600.0, max_entries: int = 1000) -> DecisionCache:
    """One that is told often that nothing has changed."""
    cache = DecisionCache(max_entries=max_entries, max_staleness_s=max_staleness_s)
    cache.checkpoint_interval_s = 0.1
    return cache


@pytest.fixture
def client(server: str, writer: Client, connect: Connect) -> Iterator[Client]:
    """A client of each kind in turn that keeps answers, however long nothing comes from the server."""
    with connect(server, cache=cache_of()) as client:
        kept(client)
        yield client


def kept(client: Client, question: tuple[str, str, str] = READS) -> Answer:
    """An answer, once the client gives it a second time without asking."""
    end_at = time.monotonic() + TIMEOUT_S
    while time.monotonic() < end_at:
        first, second = client.check(*question), client.check(*question)
        if first.decision_id == second.decision_id:
            return second
        time.sleep(0.01)
    raise AssertionError("no answer is kept")


def answer_after(client: Client, before: Answer, question: tuple[str, str, str] = READS) -> Answer:
    """The first answer that is another one than before."""
    end_at = time.monotonic() + TIMEOUT_S
    while time.monotonic() < end_at:
        answer = client.check(*question)
        if answer.decision_id != before.decision_id:
            return answer
        time.sleep(0.005)
    raise AssertionError("the answer is kept in spite of a change")


def test_an_answer_is_kept_and_so_is_a_denial(client: Client) -> None:
    assert kept(client).reason == "ROLE_GRANT"
    assert kept(client, ("user:maya", "read", "notebook:private")).reason == "CONDITION_NOT_MET"
    assert kept(client, ("user:maya", "read", "notebook:unknown")).reason == "RESOURCE_UNKNOWN"
    first, second = (client.check(*READS, fully_consistent=True) for _ in range(2))
    assert first.decision_id != second.decision_id


CHANGES: dict[str, tuple[tuple[str, str, str], Mutation, str]] = {
    "a membership": (READS, Mutation(Operation.DELETE, STUDENT.key), "NOT_A_MEMBER"),
    "an account": (
        READS,
        Mutation(Operation.TOUCH, Account(subject=MAYA, status=AccountStatus.SUSPENDED)),
        "MEMBERSHIP_NOT_EFFECTIVE",
    ),
    "a resource": (READS, Mutation(Operation.DELETE, NOTEBOOK.key), "RESOURCE_UNKNOWN"),
    "a share": (
        ("user:maya", "read", "notebook:private"),
        Mutation(
            Operation.TOUCH,
            Share(resource=ResourceRef("notebook", "private"), subject=MAYA, level=ShareLevel.VIEWER),
        ),
        "ROLE_GRANT",
    ),
    "a course": (
        READS,
        Mutation(Operation.TOUCH, Course(id="algebra", state=CourseState.DRAFT)),
        "MEMBERSHIP_NOT_EFFECTIVE",
    ),
    "a session": (
        ("user:maya", "read", "session_note:n-1"),
        Mutation(Operation.TOUCH, Session(id="monday", course_id="algebra", open_to_course=False)),
        "CONDITION_NOT_MET",
    ),
    "a new resource": (
        ("user:maya", "read", "notebook:new"),
        Mutation(
            Operation.TOUCH,
            Resource(type="notebook", id="new", scope=ALGEBRA, visibility=Visibility.COURSE),
        ),
        "ROLE_GRANT",
    ),
}


@pytest.fixture
def undone(writer: Client) -> Iterator[None]:
    """Takes back what a change leaves."""
    yield
    writer.write(
        [
            Mutation(Operation.TOUCH, Account(subject=MAYA)),
            Mutation(Operation.DELETE, ResourceRef("notebook", "new")),
            Mutation(Operation.DELETE, CHANGES["a share"][1].key),
        ]
    )


@pytest.mark.usefixtures("undone")
@pytest.mark.parametrize("what", CHANGES)
def test_a_change_by_somebody_else_ends_the_answers_that_it_concerns(
    client: Client, writer: Client, what: str
) -> None:
    question, mutation, reason = CHANGES[what]
    before = kept(client, question)
    assert before.reason != reason
    writer.write([mutation])
    assert answer_after(client, before, question).reason == reason


def test_another_policy_ends_every_answer(client: Client, writer: Client) -> None:
    files = read_folder(policy_directory())
    before = kept(client)
    writer.policies.apply({**files, "default.csv": files["default.csv"] + f"\n# {time.time_ns()}\n"})
    assert answer_after(client, before).policy_version != before.policy_version


def test_a_change_leaves_the_answers_of_others(client: Client, writer: Client) -> None:
    others = ("user:omar", "read", "notebook:nb-7")
    before, mine = kept(client, others), kept(client)
    writer.write([Mutation(Operation.DELETE, STUDENT.key)])
    answer_after(client, mine)
    assert client.check(*others).decision_id == before.decision_id


def test_a_write_of_the_client_itself_is_seen_at_once(client: Client) -> None:
    assert kept(client)
    client.write([Mutation(Operation.DELETE, STUDENT.key)])
    assert not client.check(*READS)


def test_an_answer_is_not_given_past_its_valid_until(client: Client, writer: Client) -> None:
    ends_at = time.time_ns() // 1000 + 400_000
    ending = Membership(subject=MAYA, scope=ALGEBRA, role="student", ends_at=ends_at)
    before = kept(client)
    writer.write([Mutation(Operation.TOUCH, ending)])
    answer_after(client, before)
    while time.time_ns() // 1000 < ends_at:
        client.check(*READS)
    assert not client.check(*READS)


def test_a_client_asks_when_it_hears_nothing_for_longer_than_it_may(tmp_path: Path, connect: Connect) -> None:
    url = create_sqlite(tmp_path / "authz.db")
    with ExitStack() as down:
        server = ExitStack()
        address = server.enter_context(served(url))
        client = down.enter_context(connect(address, cache=cache_of(max_staleness_s=0.5)))
        kept(client)
        server.close()
        with pytest.raises(CallError):
            for _ in range(2000):
                client.check(*READS)
                time.sleep(0.005)


LISTENER = """
role, listener, platform, 60, no,
p, listener, *, api, check, , allow
p, listener, *, api, watch, , allow
p, listener, *, api, read_courses, , allow
"""


@pytest.mark.parametrize(
    ("role", "complaint"),
    [
        ("checker", "none of its roles permits `watch`"),
        ("listener", "none of its roles permits `read_accounts`"),
    ],
)
def test_a_client_that_may_not_watch_all_that_decides_asks_each_time_and_says_why(
    tmp_path: Path, connect: Connect, caplog: pytest.LogCaptureFixture, role: str, complaint: str
) -> None:
    url, issuer = create_sqlite(tmp_path / "authz.db"), Issuer()
    files = read_folder(policy_directory())
    with served(url) as address, Client(address) as admin:
        admin.policies.apply({**files, "default.csv": files["default.csv"] + LISTENER})
    grant(url, {"service:shop": role})
    with (
        served(url, log_level="warning", **issuer.settings(tmp_path)) as address,
        connect(address, token=issuer.jwt("shop"), cache=cache_of()) as client,
    ):
        asked = {client.check(*READS).decision_id}
        end_at = time.monotonic() + TIMEOUT_S
        while "keeps no answers" not in caplog.text and time.monotonic() < end_at:
            asked.add(client.check(*READS).decision_id)
            time.sleep(0.005)
        answers = [client.check(*READS).decision_id for _ in range(3)]
    assert complaint in caplog.text
    assert len({*answers}) == 3


def test_a_client_keeps_answers_again_after_it_had_no_token(
    tmp_path: Path, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    """As while the file of a secret is replaced."""
    url, issuer, file = create_sqlite(tmp_path / "authz.db"), Issuer(), tmp_path / "token"
    grant(url, {"service:shop": "platform_admin"})
    with (
        served(url, log_level="warning", **issuer.settings(tmp_path)) as address,
        connect(address, token_file=str(file), cache=cache_of()) as client,
    ):

        def is_told_that_nothing_is_kept() -> bool:
            with pytest.raises(InvalidArgumentError, match="token_file"):
                client.check(*READS)
            return "keeps no answers" in caplog.text

        until(is_told_that_nothing_is_kept)
        file.write_text(issuer.jwt("shop"))
        assert kept(client).reason == "RESOURCE_UNKNOWN"


def test_only_so_many_answers_are_kept(server: str, writer: Client, connect: Connect) -> None:
    questions = [("user:maya", "read", f"notebook:n{number}") for number in range(3)]
    with connect(server, cache=cache_of(max_entries=2)) as client:
        first, second, third = (kept(client, question) for question in questions)
        assert client.check(*questions[1]).decision_id == second.decision_id
        assert client.check(*questions[2]).decision_id == third.decision_id
        assert client.check(*questions[0]).decision_id != first.decision_id


def test_once_a_change_was_reported_kept_answers_are_those_of_the_server(server: str, writer: Client) -> None:
    """Random changes; after each, every question is answered as by a client that keeps nothing."""
    chance = random.Random(7)
    people = [parse_subject(f"user:{name}") for name in "abc"]
    notebooks = [ResourceRef("notebook", f"r{number}") for number in range(3)]
    cache, hits = cache_of(), 0
    with Client(server, cache=cache) as client:
        before: dict[tuple[object, object], str] = {}
        kept(client)
        for _ in range(40):
            token = writer.write([random_change(chance, people, notebooks)])
            while not has_reported(cache, token):
                time.sleep(0.002)
            for person in people:
                for notebook in notebooks:
                    told, asked = (each.check(person, "read", notebook) for each in (client, writer))
                    assert (told.allowed, told.reason) == (asked.allowed, asked.reason)
                    hits += before.get((person, notebook)) == told.decision_id
                    before[person, notebook] = told.decision_id
    assert hits > 40


def has_reported(cache: DecisionCache, token: str) -> bool:
    """Whether the watch has come to a state."""
    asking = cache.asking()
    return asking is not None and latest(asking[1], token) == asking[1]


def random_change(chance: random.Random, people: list[Subject], notebooks: list[ResourceRef]) -> Mutation:
    person, notebook = chance.choice(people), chance.choice(notebooks)
    made: list[Entity] = [
        Membership(subject=person, scope=ALGEBRA, role="student", ends_at=None),
        Resource(
            type="notebook",
            id=notebook.id,
            scope=ALGEBRA,
            owner=chance.choice(people),
            visibility=chance.choice([Visibility.PRIVATE, Visibility.COURSE]),
        ),
        Course(id="algebra", state=chance.choice([CourseState.ACTIVE, CourseState.DRAFT])),
        Account(subject=person, status=chance.choice([AccountStatus.ACTIVE, AccountStatus.SUSPENDED])),
        Membership(subject=person, scope=PLATFORM, role="support_agent"),
    ]
    entity = chance.choice(made)
    gone = chance.random() < 0.4 and not isinstance(entity, Course)
    return Mutation(Operation.DELETE, entity.key) if gone else Mutation(Operation.TOUCH, entity)
