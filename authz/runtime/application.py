"""The application that Envoy runs: one serving process, as `authz.runtime.serve` is without Envoy."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import structlog

from authz.domain.instants import Instant
from authz.runtime.bind import is_answered, socket_path
from authz.runtime.child import FAILED_START, SupervisorPipe, exit_code
from authz.runtime.compose import system_clock
from authz.runtime.envoy import FOLDER, STOP_SIGNALS, SUPERVISOR, WORKING_FOLDER
from authz.runtime.envoy_admin import EnvoyAdmin, remove_envoy_folder
from authz.runtime.faces import AsgiFace
from authz.runtime.handshakes import report_refused
from authz.runtime.lifecycle import finishes_before, in_background
from authz.runtime.liveness import run_beating
from authz.runtime.logs import WRITER, configure_logging, log_uncaught
from authz.runtime.secrets import Secrets
from authz.runtime.serve import run
from authz.runtime.server import Server
from authz.runtime.settings import load_settings
from authz.runtime.supervise import run_worker

log = structlog.get_logger()

_LISTEN_POLL_S = 0.005
_ERROR = 2


class Application:
    """The ASGI application: a server from Envoy's start to the end of the process."""

    def __init__(self, clock: Callable[[], Instant] = system_clock) -> None:
        _enter_working_folder()
        self._clock = clock
        self._answer: Callable[..., Awaitable[None]] | None = None
        self._serving: asyncio.Task[None] | None = None

    async def __call__(self, scope: Mapping[str, Any], receive: Any, send: Any) -> None:
        """Answer a call; or, for the scope `lifespan`, start the server."""
        if scope["type"] == "lifespan":
            await receive()
            await self._start()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            return
        assert self._answer is not None  # noqa: S101  Envoy takes no call before the start is complete
        await self._answer(scope, receive, send)

    async def _start(self) -> None:
        """Return when the server can take calls. Its end, or that it cannot start, ends the process."""
        started = asyncio.get_running_loop().create_future()
        descriptor = os.environ.pop(SUPERVISOR, "")
        link = SupervisorPipe(int(descriptor)) if descriptor else None
        configure_logging("info")
        log_uncaught()
        asyncio.get_running_loop().set_exception_handler(_on_loop_exception)
        main = self._serve(link, partial(started.set_result, None))
        self._serving = asyncio.create_task(_run_to_the_end(main, link))
        await started

    async def _serve(self, link: SupervisorPipe | None, on_start: Callable[[], None]) -> None:
        folder = Path(os.environ.pop(FOLDER))
        try:
            await self._serve_from(folder, link, on_start)
        finally:
            remove_envoy_folder(folder)
        log.info("stopped")

    async def _serve_from(
        self, folder: Path, link: SupervisorPipe | None, on_start: Callable[[], None]
    ) -> None:
        stopped = _stop_event()
        settings = load_settings()
        configure_logging(settings.log_level)
        face = AsgiFace(settings, EnvoyAdmin(folder))
        self._answer = face.server
        on_health = (lambda _: None) if link is None else link.report_health
        server = Server(settings, clock=self._clock, face=face, on_health=on_health)
        secrets = Secrets(folder) if settings.tls_key_file else None
        if secrets is not None:
            report_refused(secrets.handshakes)
        if await finishes_before(stopped, server.start()):
            try:
                on_start()
                with nullcontext() if secrets is None else in_background(secrets.renew_forever(settings)):
                    await _listening(server.address)
                    if link is None:
                        await run(server, settings, stopped)
                    else:
                        await run_worker(server, stopped, link)
            finally:
                await server.stop(grace_s=settings.stop_grace_s)


def _on_loop_exception(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what a callback raises, except one error of pyvoy that clients could fill the log with.

    If a call ends while it waits for its client, pyvoy still sets the result of the future that `receive`
    returned, which is cancelled by then.
    """
    is_of_pyvoy = "<_pyvoy." in context.get("message", "")
    if not (is_of_pyvoy and isinstance(context.get("exception"), asyncio.InvalidStateError)):
        loop.default_exception_handler(context)


async def _run_to_the_end(main: Coroutine[Any, Any, None], link: SupervisorPipe | None) -> NoReturn:
    """Run `main`, and end the process when it returns or fails."""
    code = await exit_code(run_beating(main, None if link is None else link.beat))
    WRITER.flush()
    # Envoy would first close what the stop has already drained, and wait for Python.
    os._exit(_ERROR if link is None and code == FAILED_START else code)


def _stop_event() -> asyncio.Event:
    """An event that SIGTERM or SIGINT sets. All threads of the process block them, so that one may wait."""
    stopped, loop = asyncio.Event(), asyncio.get_running_loop()

    def wait() -> None:
        while True:
            signal.sigwait(STOP_SIGNALS)
            loop.call_soon_threadsafe(stopped.set)

    threading.Thread(target=wait, name="signals", daemon=True).start()
    return stopped


async def _listening(address: str) -> None:
    """Return once Envoy listens, which it does soon after the start is complete."""
    while not await asyncio.to_thread(_is_answered, address):  # noqa: ASYNC110  nobody tells
        await asyncio.sleep(_LISTEN_POLL_S)


def _is_answered(address: str) -> bool:
    if path := socket_path(address):
        return is_answered(path)
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=1).close()
    except OSError:
        return False
    return True


def _enter_working_folder() -> None:
    """Leave the folder of `EnvoyCommand.exec`, and import nothing from the one to work in."""
    sys.path[:] = [folder for folder in sys.path if folder != "."]
    if folder := os.environ.pop(WORKING_FOLDER, ""):
        os.chdir(folder)
