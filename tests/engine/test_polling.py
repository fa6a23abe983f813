"""A step that is taken again and again: it goes on through every failure, and each is logged once."""

from __future__ import annotations

import asyncio

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
        polling = asyncio.create_task(poll(step, interval_s=0.001, unavailable="no database"))
        await ended.wait()
        polling.cancel()
    failed = "background step failed"
    assert [each["event"] for each in logged] == ["no database", failed, "no database", "no database", failed]
