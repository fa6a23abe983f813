"""A question of a client sees what the client wrote, also on a machine that is behind."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from authz.client import CallError, Client
from authz.domain.entities import Course, CourseState, Membership
from authz.domain.ids import course_scope, parse_subject
from authz.domain.mutations import Mutation, Operation
from authz.domain.tokens import ConsistencyToken, TokenKeys, latest
from tests.client.conftest import Connect
from tests.databases import create_sqlite
from tests.serving import find_free_port, served
from tests.waiting import until

COURSE = Course(id="algebra", state=CourseState.ACTIVE)
STUDENT = Membership(subject=parse_subject("user:maya"), scope=course_scope("algebra"), role="student")
QUESTION = ("user:maya", "read", "course:algebra")


def machine(url: str, replica: Path, **settings: str) -> AbstractContextManager[str]:
    """The address of a server on a machine of its own."""
    return served(url, replica_dir=str(replica), freshness_timeout_s="0.05", **settings)


def reason_of_check(client: Client) -> str:
    """Why a check was denied, or failed."""
    try:
        answer = client.check(*QUESTION)
    except CallError as error:
        return error.reason
    assert not answer.allowed
    return str(answer.reason)


def test_a_machine_that_has_not_the_write_does_not_answer_from_before_it(
    sqlite_url: str, tmp_path: Path, connect: Connect
) -> None:
    address = f"127.0.0.1:{find_free_port()}"
    first, second = tmp_path / "first", tmp_path / "second"
    with machine(sqlite_url, second) as other, Client(other) as client:
        client.write([Mutation(Operation.CREATE, each) for each in (COURSE, STUDENT)])
    with connect(address) as client:
        with machine(sqlite_url, first, address=address):
            client.write([Mutation(Operation.DELETE, STUDENT.key)])
            assert reason_of_check(client) == "NOT_A_MEMBER"
        # It answers from its replica, which nobody keeps up to date.
        behind = machine(sqlite_url, second, address=address, follow="false", max_staleness_s="600")
        with behind, Client(address) as other_client:
            until(lambda: reason_of_check(client) == "NOT_FRESH_ENOUGH")
            with pytest.raises(CallError):
                list(client.with_options(timeout_s=2).list_resources("user:maya", "read"))
            assert other_client.check(*QUESTION), "the second machine is not behind"


def test_a_client_goes_on_asking_when_the_database_is_another_one(tmp_path: Path, connect: Connect) -> None:
    """As in development: the server is started anew over an empty database."""
    address = f"127.0.0.1:{find_free_port()}"
    with connect(address) as client:
        with machine(create_sqlite(tmp_path / "a.db"), tmp_path / "a", address=address):
            client.write([Mutation(Operation.CREATE, COURSE)])
            assert reason_of_check(client) == "NOT_A_MEMBER"
        with machine(create_sqlite(tmp_path / "b.db"), tmp_path / "b", address=address):
            until(lambda: reason_of_check(client) == "RESOURCE_UNKNOWN")


STATES = [ConsistencyToken("d", 5, 50), ConsistencyToken("d", 6, 60), ConsistencyToken("d", 4, 70)]


@pytest.mark.parametrize(
    ("kept", "new", "later"),
    [
        (STATES[0], STATES[1], STATES[1]),
        (STATES[1], STATES[0], STATES[1]),  # of two writes that were made together
        (STATES[1], STATES[2], STATES[2]),  # after the database was restored
        (STATES[1], ConsistencyToken("other", 1, 10), ConsistencyToken("other", 1, 10)),
    ],
)
def test_the_later_of_two_states_is_the_one_to_ask_for(
    kept: ConsistencyToken, new: ConsistencyToken, later: ConsistencyToken
) -> None:
    keys = TokenKeys()
    for state in (kept, new):
        keys.add(state.database_id, bytes(32))
    assert latest(keys.sign(kept), keys.sign(new)) == keys.sign(later)


@pytest.mark.parametrize("text", ["", "x", "not a token", "AAAAAAAAAAAAAAAAAAAAAAAA"])
def test_a_token_that_cannot_be_read_gives_way_to_the_next(text: str) -> None:
    assert latest(text, "new") == "new"
