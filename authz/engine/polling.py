"""Runs a step again and again in the background, through every failure."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

from authz.domain.errors import AuthzError

log = structlog.get_logger()


async def poll(step: Callable[[], Awaitable[object]], *, interval_s: float, unavailable: str) -> None:
    """Await `step` about every `interval_s` seconds until cancelled.

    `unavailable` is the warning that is logged for an `AuthzError`. A failure is logged once, until a step
    succeeds or fails in another way. The pauses vary by half, so that processes that started together do not
    go on together.
    """
    last: type[Exception] | None = None
    while True:
        failure: type[Exception] | None = None
        try:
            await step()
        except AuthzError as error:
            failure = AuthzError
            if failure is not last:
                log.warning(unavailable, error=error.message)
        except Exception as error:
            # If the task ended, nothing would take the next step.
            failure = type(error)
            if failure is not last:
                log.exception("background step failed", step=step.__qualname__)
        last = failure
        await asyncio.sleep(interval_s * random.uniform(0.5, 1.5))  # noqa: S311  no secret
