"""A step that is taken again and again: it goes on through every failure, and logs each once."""

from __future__ import annotations

import asyncio
from functools import partial

from structlog.testing import capture_logs

from authz.domain.errors import ErrorReason, UnavailableError
from authz.engine.polling import poll

AWAY = UnavailableError(ErrorReason.STORE_UNAVAILABLE, "away")


async def test_a_failure_that_lasts_is_logged_once_and_again_after_a_success() -> None:
    outcomes = iter((AWAY, AWAY, KeyError(1), KeyError(2), AWAY, None, AWAY, AWAY, ValueError()))
    ended = asyncio.Event()

    async def step() -> None:
        outcome = next(outcomes, ended)
        if isinstance(outcome, Exception):
            raise outcome
        if outcome is ended:
            ended.set()

    with capture_logs() as logged:
        polling = asyncio.create_task(poll(step, interval_s=0.001, work="removal"))
        await ended.wait()
        polling.cancel()
    failed = "background step failed"
    waits = "background work waits"
    assert [each["event"] for each in logged] == [waits, failed, waits, waits, failed]


async def test_work_that_waits_for_the_same_cause_is_logged_once_and_other_causes_are_logged_too() -> None:
    full = UnavailableError(ErrorReason.STORE_FULL, "full")
    failures = {"removal": AWAY, "erasure": AWAY, "purge": full}
    failed: dict[str, asyncio.Event] = {}

    async def fail(work: str) -> None:
        failed[work].set()
        raise failures[work]

    async def wait_with(*names: str) -> set[tuple[str, str]]:
        """What is logged until each work has failed, and is cancelled."""
        failed.update({each: asyncio.Event() for each in names})
        with capture_logs() as logged:
            polls = [
                asyncio.create_task(poll(partial(fail, each), interval_s=0.001, work=each)) for each in names
            ]
            await asyncio.gather(*(failed[each].wait() for each in names))
            for each in polls:
                each.cancel()
            await asyncio.gather(*polls, return_exceptions=True)
        return {(each["work"], each["error"]) for each in logged}

    assert await wait_with("removal", "erasure", "purge") == {("removal", "away"), ("purge", "full")}
    assert await wait_with("erasure") == {("erasure", "away")}
