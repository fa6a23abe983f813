"""Reads that ask the database for its head at the same time share a query, and none gets an old answer."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from authz.domain.consistency import FULLY_CONSISTENT
from authz.domain.entities import Course
from authz.domain.errors import ErrorReason, UnavailableError
from authz.domain.tokens import ConsistencyToken
from authz.engine import consistency, shared_query
from authz.engine.consistency import ConsistencyGate
from authz.engine.shared_query import SharedQuery
from authz.store import Store
from tests.replica.conftest import following, gate_of, viewing
from tests.store.directory import create, open_with, write


class Gated:
    """A query that answers with what was there when it began, once it is let go on."""

    def __init__(self) -> None:
        self.now = 0
        self.asked = 0
        self.go_on = asyncio.Event()

    async def __call__(self) -> int:
        self.asked += 1
        found = self.now
        await self.go_on.wait()
        if found < 0:
            raise UnavailableError(ErrorReason.STORE_UNAVAILABLE, "away")
        return found


async def begun(*tasks: asyncio.Task[int]) -> None:
    """Let everything run that can."""
    for _ in range(10):
        await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)


async def test_callers_share_a_query_that_began_after_each_of_them() -> None:
    query = Gated()
    shared = SharedQuery(query)
    first = asyncio.create_task(shared.answer())
    await begun(first)
    query.now = 1
    later = [asyncio.create_task(shared.answer()) for _ in range(50)]
    await begun(first, *later)
    assert query.asked == 1
    query.go_on.set()
    assert await first == 0
    assert await asyncio.gather(*later) == [1] * 50
    assert query.asked == 2


async def test_a_caller_that_goes_takes_no_answer_from_the_others() -> None:
    query = Gated()
    shared = SharedQuery(query)
    callers = [asyncio.create_task(shared.answer()) for _ in range(3)]
    await begun(*callers)
    callers[0].cancel()
    query.go_on.set()
    assert await asyncio.gather(*callers[1:]) == [0, 0]


async def test_an_error_is_of_those_who_waited_for_it_alone() -> None:
    query = Gated()
    query.now = -1
    shared = SharedQuery(query)
    failing = [asyncio.create_task(shared.answer()) for _ in range(3)]
    await begun(*failing)
    query.now = 7
    later = asyncio.create_task(shared.answer())
    query.go_on.set()
    outcomes = await asyncio.gather(*failing, return_exceptions=True)
    assert all(isinstance(outcome, UnavailableError) for outcome in outcomes)
    assert await later == 7


async def test_who_calls_while_a_query_hangs_is_refused_and_the_next_one_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shared_query, "_HANGS_AFTER_S", 0)
    query = Gated()
    shared = SharedQuery(query)
    first = asyncio.create_task(shared.answer())
    await begun(first)
    for _ in range(3):
        with pytest.raises(UnavailableError, match="the database does not answer"):
            await shared.answer()
    assert not first.done()
    query.go_on.set()
    assert await first == await shared.answer() == 0
    assert query.asked == 2


async def test_a_caller_waits_no_longer_than_it_may_and_the_others_go_on_waiting() -> None:
    query = Gated()
    shared = SharedQuery(query)
    patient = asyncio.create_task(shared.answer())
    with pytest.raises(UnavailableError) as refused:
        await shared.answer(time.monotonic() + 0.01)
    assert (refused.value.reason, patient.done()) == (ErrorReason.STORE_UNAVAILABLE, False)
    query.go_on.set()
    assert await patient == 0


def heads_asked(store: Store) -> list[ConsistencyToken]:
    """The answers to each query of the head from now on."""
    head, asked = store.directory.head, list[ConsistencyToken]()

    def counted() -> ConsistencyToken:
        asked.append(head())
        return asked[-1]

    store.directory.head = counted  # type: ignore[method-assign]
    return asked


def test_fully_consistent_reads_share_the_queries_of_the_head_and_see_each_write_before_them(
    store_url: str, tmp_path: Path
) -> None:
    store = open_with(store_url)
    asked = heads_asked(store)

    async def reads(gate: ConsistencyGate) -> None:
        for number in range(5):
            revision = await asyncio.to_thread(write, store, create(Course(id=f"c{number}")))
            asked.clear()
            read = await asyncio.gather(*(gate.snapshot(FULLY_CONSISTENT, None) for _ in range(100)))
            assert min(snapshot.revision for snapshot in read) >= revision
            assert len(asked) == 1

    with following(store, tmp_path / "r"), viewing(tmp_path / "r") as view, gate_of(view, store) as gate:
        asyncio.run(reads(gate))
    store.close()


def test_a_database_that_has_just_answered_is_not_asked_again_whether_it_does(
    store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_with(store_url)
    asked = heads_asked(store)

    async def looks(gate: ConsistencyGate) -> None:
        monkeypatch.setattr(consistency, "_ANSWERED_S", 60)
        for _ in range(5):
            await gate.require_answer()
        assert len(asked) == 1
        monkeypatch.setattr(consistency, "_ANSWERED_S", -1)
        await gate.require_answer()
        assert len(asked) == 2
        monkeypatch.setattr(consistency, "_ANSWERED_S", 60)
        # Who reads the answer itself always gets a new one.
        revision = await asyncio.to_thread(write, store, create(Course(id="new")))
        assert (await gate.snapshot(FULLY_CONSISTENT, None)).revision >= revision
        assert len(asked) == 3

    with following(store, tmp_path / "r"), viewing(tmp_path / "r") as view, gate_of(view, store) as gate:
        asyncio.run(looks(gate))
    store.close()
