"""Writes to clients that may not be reading."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

from authz.domain.errors import OverloadedError

_RETRY_AFTER_S = 1.0


async def write_within(timeout_s: float, write: Awaitable[None], *, what: str) -> None:
    """Await a write of a part of `what`. Raises `OverloadedError` after the timeout: what a stream is read
    from, such as a transaction, is not kept open for a client that does not read."""
    if not await completes_within(timeout_s, write):
        raise OverloadedError(
            f"the client has not read the {what} for {timeout_s:g} s; read it as it comes",
            retry_after_s=_RETRY_AFTER_S,
        )


async def completes_within(timeout_s: float, write: Awaitable[None]) -> bool:
    """Whether a write completes within the timeout. If not, it continues in the background: an
    operation of the transport cannot be taken back."""
    writing = asyncio.ensure_future(write)
    writing.add_done_callback(_consume_outcome)
    done, _ = await asyncio.wait({writing}, timeout=timeout_s)
    if done:
        writing.result()
    return bool(done)


def _consume_outcome(writing: asyncio.Future[None]) -> None:
    """Keep asyncio from logging the outcome of an abandoned write."""
    if not writing.cancelled():
        writing.exception()
