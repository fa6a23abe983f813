"""Ends a call that waits for a database which does not answer, while its client still listens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from authz.api.call import Call, CallKind
from authz.domain.errors import NO_ANSWER, UnavailableError, no_answer

AnswerT = TypeVar("AnswerT")

_ANSWER_MARGIN_S = 0.25
"""Kept of a deadline for the answer, so that the client gets it instead of its own DEADLINE_EXCEEDED."""
_UNKNOWN = (
    "; if the call changes anything, it is unknown whether it did: repeat a write with its `idempotency_key`"
)
_OUTCOMES = {
    CallKind.WRITE: _UNKNOWN,
    CallKind.POLICY: _UNKNOWN,
    CallKind.IMPORT: "; a part that was being written is not counted and may be committed: import again",
}


async def before_deadline(
    running: Awaitable[AnswerT], call: Call, database_fault: Callable[[], str]
) -> AnswerT:
    """The answer of `running`. Shortly before the deadline of the call, cancels it and raises
    `UnavailableError` (STORE_UNAVAILABLE) with the fault that the database has then, if any."""
    try:
        return await _until_deadline(running, call, database_fault)
    except UnavailableError as error:
        fault = database_fault()
        if error.message != NO_ANSWER or fault in {"", NO_ANSWER}:
            raise
        # Its connection was aborted, which cannot tell why the answer took long.
        told = no_answer(fault + _OUTCOMES.get(call.method.kind, ""))
        for note in error.notes:
            told.add_note(note)
        raise told from None


async def _until_deadline(
    running: Awaitable[AnswerT], call: Call, database_fault: Callable[[], str]
) -> AnswerT:
    if call.deadline is None:
        return await running
    left_s = call.deadline - time.monotonic()
    margin_s = min(_ANSWER_MARGIN_S, left_s / 2)
    loop = asyncio.get_running_loop()
    fault = ""

    def end_if_it_hangs() -> None:
        nonlocal fault
        fault = database_fault()
        if fault:
            limit.reschedule(loop.time())

    try:
        async with asyncio.timeout(None) as limit:
            timer = loop.call_later(left_s - margin_s, end_if_it_hangs)
            try:
                return await running
            finally:
                timer.cancel()
    except TimeoutError:
        if not limit.expired():
            raise
        raise no_answer(fault + _OUTCOMES.get(call.method.kind, "")) from None
