"""Puts the service together: policy, store, servicers, health, reflection, a graceful stop."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import grpc
import structlog
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from authz.domain.errors import ErrorReason, InvalidArgumentError, UnavailableError
from authz.domain.instants import Instant
from authz.policy.compile import CompiledPolicy
from authz.policy.load import load_policy, policy_directory
from authz.service.authorization import AuthorizationServicer
from authz.service.checker import Checker
from authz.service.directory import DirectoryServicer
from authz.service.interceptor import CallInterceptor
from authz.service.reading import Reading
from authz.service.waking import HeadPoll
from authz.service.watch import WatchServicer
from authz.settings import Settings
from authz.store import Store, open_store
from authz.v1 import (
    authorization_pb2,
    authorization_pb2_grpc,
    directory_pb2,
    directory_pb2_grpc,
    watch_pb2,
    watch_pb2_grpc,
)

log = structlog.get_logger()

_PROBE_INTERVAL_S = 2.0
_SERVICE_NAMES = tuple(
    module.DESCRIPTOR.services_by_name[name].full_name
    for module, name in (
        (authorization_pb2, "AuthorizationService"),
        (directory_pb2, "DirectoryService"),
        (watch_pb2, "WatchService"),
    )
)


def system_clock() -> Instant:
    """The time now, from the machine."""
    return time.time_ns() // 1000


class Server:
    """One server. An async context manager: inside, it serves at `address`.

    Raises `PolicyError`, `InvalidArgumentError` or `UnavailableError` on entering when it cannot
    serve; then nothing is left running.
    """

    def __init__(self, settings: Settings, *, clock: Callable[[], Instant] = system_clock) -> None:
        self._settings = settings
        self._clock = clock
        self._health = health.aio.HealthServicer()
        self._pool = ThreadPoolExecutor(settings.read_threads, thread_name_prefix="read")
        self._write_pool = ThreadPoolExecutor(1, thread_name_prefix="write")
        self._watch: WatchServicer | None = None
        self._store: Store | None = None
        self._grpc: grpc.aio.Server | None = None
        self._probe: asyncio.Task[None] | None = None
        self.address = settings.address

    async def __aenter__(self) -> Server:
        """Load the policy, open the store, listen, and only then report health as serving."""
        try:
            await self._start()
        except BaseException:
            await self.stop(grace_s=0)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop, letting calls in flight finish."""
        await self.stop(grace_s=self._settings.stop_grace_s)

    async def stop(self, *, grace_s: float) -> None:
        """Refuse new calls, end watches, let calls in flight finish for `grace_s`, close the store.

        Idempotent.
        """
        if self._probe is not None:
            self._probe.cancel()
            with suppress(asyncio.CancelledError):
                await self._probe
            self._probe = None
        if self._grpc is not None:
            await self._health.enter_graceful_shutdown()
            if self._watch is not None:
                # They would never finish by themselves.
                self._watch.stop()
            await self._grpc.stop(grace_s)
            self._grpc = None
        await asyncio.to_thread(self._write_pool.shutdown)
        await asyncio.to_thread(self._pool.shutdown)
        if self._store is not None:
            self._store.close()
            self._store = None

    async def _start(self) -> None:
        settings = self._settings
        policy = load_policy(Path(settings.policy_dir) if settings.policy_dir else policy_directory())
        for name in settings.inline_type_names:
            policy.vocabulary.require_type(name)
        self._store = store = await asyncio.to_thread(
            open_store,
            settings.database_url,
            vocabulary=lambda: policy.vocabulary,
            clock=self._clock,
            migrate=settings.migrate_on_start,
        )
        self._grpc = server = grpc.aio.server(
            interceptors=[
                CallInterceptor(
                    max_concurrent_calls=settings.max_concurrent_calls, max_watches=settings.max_watches
                )
            ],
            options=[
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                ("grpc.max_send_message_length", settings.max_message_bytes),
                ("grpc.so_reuseport", 0),
            ],
        )
        self._add_servicers(server, policy, store)
        self.address = _listen(server, settings)
        await self._report(serving=False)
        await server.start()
        await self._report(serving=True)
        self._probe = asyncio.create_task(self._probe_store(store))
        log.info("serving", address=self.address, policy_version=policy.version)

    def _add_servicers(self, server: grpc.aio.Server, policy: CompiledPolicy, store: Store) -> None:
        reading = Reading(
            store.view,
            database_id=store.directory.database_id,
            pool=self._pool,
            freshness_wait_s=self._settings.freshness_wait_s,
        )
        checker = Checker(policy, inline_types=self._settings.inline_type_names)
        authorization_pb2_grpc.add_AuthorizationServiceServicer_to_server(
            AuthorizationServicer(checker, reading, self._clock), server
        )
        directory_pb2_grpc.add_DirectoryServiceServicer_to_server(
            DirectoryServicer(store.directory, reading, self._write_pool), server
        )
        self._watch = WatchServicer(
            store.directory,
            reading,
            HeadPoll(store.directory, reading).wait_beyond,
            write_timeout_s=self._settings.watch_write_timeout_s,
            max_message_bytes=self._settings.max_message_bytes,
        )
        watch_pb2_grpc.add_WatchServiceServicer_to_server(self._watch, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (*_SERVICE_NAMES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)

    async def _report(self, *, serving: bool) -> None:
        status = (
            health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        )
        for name in ("", *_SERVICE_NAMES):
            await self._health.set(name, status)

    async def _probe_store(self, store: Store) -> None:
        """Keep health true to whether the database answers."""
        serving = True
        while True:
            await asyncio.sleep(_PROBE_INTERVAL_S)
            try:
                await asyncio.to_thread(store.directory.head)
                answers = True
            except UnavailableError:
                answers = False
            except Exception:
                # A probe that ended here would leave health as it was, true or not.
                log.exception("probe failed")
                answers = False
            if answers is not serving:
                serving = answers
                log.warning("health changed", serving=serving)
                await self._report(serving=serving)


def _listen(server: grpc.aio.Server, settings: Settings) -> str:
    address = settings.address
    try:
        if settings.tls_key_file:
            port = server.add_secure_port(address, _credentials(settings))
        else:
            port = server.add_insecure_port(address)
    except RuntimeError:
        raise InvalidArgumentError(
            ErrorReason.MALFORMED_FIELD,
            f"cannot listen at `{address}`: it is in use or not an address; set AUTHZ_ADDRESS",
            field="AUTHZ_ADDRESS",
        ) from None
    return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"


def _credentials(settings: Settings) -> grpc.ServerCredentials:
    client_ca = settings.tls_client_ca_file
    return grpc.ssl_server_credentials(
        [(Path(settings.tls_key_file).read_bytes(), Path(settings.tls_certificate_file).read_bytes())],
        root_certificates=Path(client_ca).read_bytes() if client_ca else None,
        require_client_auth=bool(client_ca),
    )


def configure_logging(level: str) -> None:
    """JSON lines on standard error."""
    number = logging.getLevelNamesMapping()[level.upper()]
    logging.basicConfig(level=number, stream=sys.stderr)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then let calls in flight finish."""
    configure_logging(settings.log_level)
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with Server(settings):
        await stopped.wait()
        log.info("stopping", grace_s=settings.stop_grace_s)
