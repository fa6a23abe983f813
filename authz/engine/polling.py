"""Runs a step again and again in the background, through every failure."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import structlog

from authz.domain.errors import AuthzError

log = structlog.get_logger()

_waiting: dict[object, str] = {}
"""Why each poll of this process waits that does, so that all that wait for the database are one line."""


async def poll(step: Callable[[], Awaitable[object]], *, interval_s: float, work: str) -> None:
    """Await `step` about every `interval_s` seconds until cancelled.

    A failure is logged once, until a step succeeds or fails in another way. An `AuthzError` is a warning that
    `work` waits; no other poll of this process logs the same error meanwhile. The pauses vary by half, so
    that processes that started together do not go on together.
    """
    key, last = object(), type(None)
    try:
        while True:
            last = await _take(step, key, last, work)
            await asyncio.sleep(interval_s * random.uniform(0.5, 1.5))  # noqa: S311  no secret
    finally:
        _waiting.pop(key, None)


async def _take(step: Callable[[], Awaitable[object]], key: object, last: type, work: str) -> type:
    """Take a step, and log how it fails; return the kind of failure, and that of None for a success."""
    try:
        await step()
    except AuthzError as error:
        if last is not AuthzError:
            if error.message not in _waiting.values():
                log.warning("background work waits", work=work, error=error.message)
            _waiting[key] = error.message
        return AuthzError
    except Exception as error:
        # If the task ended, nothing would take the next step.
        if type(error) is not last:
            log.exception("background step failed", step=step.__qualname__)
        _waiting.pop(key, None)
        return type(error)
    _waiting.pop(key, None)
    return type(None)
