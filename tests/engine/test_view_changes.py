"""Calls that wait for the replica share one poll of it, and none misses a change."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from authz.domain.errors import ErrorReason, UnavailableError
from authz.engine.view_changes import ViewChanges


class Replica:
    """A view of a revision that the test sets, and counts its polls."""

    def __init__(self) -> None:
        self.held = 1
        self.fault: Exception | None = None
        self.polls = 0

    def revision(self) -> int:
        self.polls += 1
        return self.held

    def snapshot(self) -> Any:
        if self.fault is not None:
            raise self.fault
        return SimpleNamespace(state=self.held)


async def polled(view: Replica, times: int) -> None:
    wanted = view.polls + times
    while view.polls < wanted:  # noqa: ASYNC110  polls are what is counted
        await asyncio.sleep(0.001)


async def test_a_thousand_calls_that_wait_cost_the_polls_of_one() -> None:
    view = Replica()
    changes = ViewChanges(view)  # type: ignore[arg-type]  # what it uses of a view
    seen = changes.look()
    woken: list[int] = []

    async def wait(number: int) -> None:
        await changes.wait(seen, 60)
        woken.append(number)

    waiting = [asyncio.create_task(wait(number)) for number in range(1000)]
    await polled(view, 5)
    assert not woken
    before = view.polls
    view.held = 2
    await asyncio.gather(*waiting)
    assert sorted(woken) == [*range(1000)]
    assert view.polls == before + 1


@pytest.mark.parametrize(
    "fault", [UnavailableError(ErrorReason.TOO_STALE, "stale"), RuntimeError()], ids=repr
)
async def test_a_view_that_fails_and_one_that_recovers_have_changed(fault: Exception) -> None:
    view = Replica()
    changes = ViewChanges(view)  # type: ignore[arg-type]  # what it uses of a view
    for each in (fault, None):
        waiting = asyncio.create_task(changes.wait(changes.look(), 60))
        await polled(view, 2)
        view.fault = each
        await waiting


async def test_a_change_before_the_wait_begins_is_not_missed() -> None:
    view = Replica()
    changes = ViewChanges(view)  # type: ignore[arg-type]  # what it uses of a view
    first = asyncio.create_task(changes.wait(changes.look(), 60))
    await polled(view, 1)
    view.held = 2
    seen = changes.look()
    view.held = 1
    # The first is told by the second, which saw another state; the second is told of the state after.
    await asyncio.gather(first, changes.wait(seen, 60))


async def test_nobody_polls_once_nobody_waits() -> None:
    view = Replica()
    changes = ViewChanges(view)  # type: ignore[arg-type]  # what it uses of a view
    gone = asyncio.create_task(changes.wait(changes.look(), 60))
    await polled(view, 1)
    gone.cancel()
    await changes.wait(changes.look(), 0.001)
    before = view.polls
    await asyncio.sleep(0.05)
    assert view.polls == before
