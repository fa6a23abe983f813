"""A server in a thread of another program: of a command, or of a test."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvloop

from authz.domain.decision_log import DecisionEntry
from authz.domain.instants import Instant
from authz.runtime.audit import SynchronousDecisionLog
from authz.runtime.compose import system_clock
from authz.runtime.logs import WRITER, configure_logging
from authz.runtime.server import Server
from authz.runtime.settings import Settings


@contextmanager
def embedded(
    settings: Settings,
    *,
    clock: Callable[[], Instant] = system_clock,
    on_question: Callable[[DecisionEntry], None] | None = None,
) -> Iterator[str]:
    """Run the server in a thread of this process until the block ends; yields its address.

    Calls `on_question` with every question, before its answer is sent."""
    configure_logging(settings.log_level)
    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="server", daemon=True)
    thread.start()

    async def start() -> Server:
        decisions = None if on_question is None else SynchronousDecisionLog(on_question)
        return await Server(settings, clock=clock, decisions=decisions).__aenter__()

    try:
        server = asyncio.run_coroutine_threadsafe(start(), loop).result()
        try:
            yield server.address
        finally:
            # The client has every answer.
            asyncio.run_coroutine_threadsafe(server.stop(grace_s=0), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        WRITER.flush()
