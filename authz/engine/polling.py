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

    `unavailable` is the warning that is logged for an `AuthzError`: once, until a step succeeds again. Any
    other failure is logged each time. The pauses vary by half, so that processes that started together do not
    go on together.
    """
    is_unavailable = False
    while True:
        try:
            await step()
            is_unavailable = False
        except AuthzError as error:
            if not is_unavailable:
                log.warning(unavailable, error=error.message)
            is_unavailable = True
        except Exception:
            # If the task ended, nothing would take the next step.
            log.exception("background step failed", step=step.__qualname__)
        await asyncio.sleep(interval_s * random.uniform(0.5, 1.5))  # noqa: S311  no secret
