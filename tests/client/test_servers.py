"""A client with several servers behind its target: one that refuses calls does not fail them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from authz.client import CallError, Client, CourseFilter
from authz.domain.entities import Course, CourseState
from authz.domain.mutations import Mutation, Operation
from tests.client.conftest import Connect
from tests.serving import served
from tests.waiting import until

QUESTION = ("user:maya", "read", "course:algebra")
CALLS = 12


def reason_at(address: str) -> str:
    """Why a server, asked alone, does not answer a check; empty if it does."""
    with Client(address) as client:
        try:
            client.check(*QUESTION)
        except CallError as error:
            return error.reason
    return ""


@pytest.fixture
def campus(sqlite_url: str, tmp_path: Path) -> str:
    """A database with a course, which the machine `stale` has followed."""
    with machine(sqlite_url, tmp_path / "stale") as address, Client(address) as client:
        client.write([Mutation(Operation.CREATE, Course(id="algebra", state=CourseState.ACTIVE))])
    return sqlite_url


def machine(url: str, replica: Path, **settings: str) -> AbstractContextManager[str]:
    """The address of a server on a machine of its own."""
    return served(url, replica_dir=str(replica), **settings)


@pytest.mark.parametrize("turned", [False, True], ids=["first", "last"])
def test_a_machine_that_is_too_stale_fails_no_call(
    campus: str, tmp_path: Path, connect: Connect, *, turned: bool
) -> None:
    with (
        machine(campus, tmp_path / "stale", follow="false", max_staleness_s="0.5") as stale,
        machine(campus, tmp_path / "fresh") as fresh,
    ):
        until(lambda: reason_at(stale) == "TOO_STALE")
        addresses = [stale, fresh][:: -1 if turned else 1]
        with connect(f"ipv4:{','.join(addresses)}") as client:
            for _ in range(CALLS):
                assert client.check(*QUESTION).reason == "NOT_A_MEMBER"
                assert not list(client.list_resources("user:maya", "read"))
                assert len(list(client.read(CourseFilter()))) == 1
        assert reason_at(stale) == "TOO_STALE"
