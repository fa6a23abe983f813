"""Puts the service together: policy, store, servicers, health, reflection, a graceful stop."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType

import grpc
import structlog
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection

from authz.access.authentication import CertificateAuthenticator
from authz.access.permission import AllowAll
from authz.api.endpoints import endpoints_of
from authz.api.grpc.adapter import Endpoints
from authz.api.grpc.authorization import AuthorizationServicer
from authz.api.grpc.directory import DirectoryServicer
from authz.api.grpc.watch import WatchServicer
from authz.api.pipeline import Pipeline
from authz.domain.errors import AuthzError, ErrorReason, InvalidArgumentError, UnavailableError
from authz.domain.instants import Instant
from authz.engine.check import STRUCTURAL_TYPES, Checker
from authz.engine.consistency import ConsistencyGate
from authz.engine.group_commit import GroupCommitter
from authz.engine.watch import Watches
from authz.engine.write import DirectoryWriter
from authz.policy.compile import CompiledPolicy
from authz.policy.load import load_policy, policy_directory
from authz.replica.follower import Follower
from authz.replica.shared_state import SharedState
from authz.replica.view import ReplicaView
from authz.runtime.bind import listen
from authz.runtime.health import Health
from authz.runtime.logs import configure_logging
from authz.runtime.metrics import exporting
from authz.runtime.settings import Settings
from authz.runtime.signals import ReloadSignal, run_until_stopped
from authz.store import Store, companion_path, open_store, prepare_store
from authz.v1 import authorization_pb2, directory_pb2, watch_pb2
from authz.wire.changes import WatchMessages

log = structlog.get_logger()

AUTHORIZATION = authorization_pb2.DESCRIPTOR.services_by_name["AuthorizationService"].full_name
DIRECTORY = directory_pb2.DESCRIPTOR.services_by_name["DirectoryService"].full_name
WATCH = watch_pb2.DESCRIPTOR.services_by_name["WatchService"].full_name
_LAST_ANSWER_S = 2.0
"""How long a stop waits for the database once no call waits for it any more."""
_SWITCH_INTERVAL_S = 0.0005
"""The write thread lets the interpreter go at each statement, and while the event loop is busy waits this
long to get it back: with Python's 5 ms the statements of one transaction would take 50 ms."""


def system_clock() -> Instant:
    """The time now, from the machine."""
    return time.time_ns() // 1000


class Server:
    """One serving process. An async context manager: inside, it serves at `address`.

    With `follows`, it keeps the replica up to date itself, in a thread; without, a process beside it
    does, which has also made sure of the schema. Raises `PolicyError`, `InvalidArgumentError`,
    `FailedPreconditionError` or, as `prepare_database`, `UnavailableError` on entering when it cannot
    serve; then nothing is left running.
    """

    def __init__(
        self, settings: Settings, *, clock: Callable[[], Instant] = system_clock, follows: bool = True
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._follows = follows
        self._health = Health(AUTHORIZATION, (DIRECTORY, WATCH))
        self._pool = ThreadPoolExecutor(settings.read_threads, thread_name_prefix="read")
        self._writing: GroupCommitter | None = None
        self._checker: Checker | None = None
        self._authorization: AuthorizationServicer | None = None
        self._watches: Watches[watch_pb2.WatchResponse] | None = None
        self._store: Store | None = None
        self._view: ReplicaView | None = None
        self._follower: Follower | None = None
        self._following: threading.Thread | None = None
        self._grpc: grpc.aio.Server | None = None
        self.address = settings.address

    async def __aenter__(self) -> Server:
        """Load the policy, open store and replica, listen, and only then report health as serving."""
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

        A database that gives no answer is then not waited for. Idempotent.
        """
        await self._health.drain()
        if self._grpc is not None:
            if self._watches is not None:
                # They would never finish by themselves.
                self._watches.stop()
            await self._grpc.stop(grace_s)
            self._grpc = None
        with self._hanging_up():
            await self._end_threads()
        if self._view is not None:
            self._view.close()
            self._view = None
        if self._store is not None:
            self._store.close()
            self._store = None

    @contextmanager
    def _hanging_up(self) -> Iterator[None]:
        """Wait for the database inside the block no longer than a moment."""
        store = self._store
        if store is None:
            yield
            return
        loop = asyncio.get_running_loop()
        waiting = loop.call_later(_LAST_ANSWER_S, lambda: store.directory.abort_connections(permanently=True))
        try:
            yield
        finally:
            waiting.cancel()

    async def _end_threads(self) -> None:
        if self._writing is not None:
            await self._writing.close()
            self._writing = None
        await asyncio.to_thread(self._pool.shutdown, cancel_futures=True)
        if self._follower is not None and self._following is not None:
            self._follower.stop()
            await asyncio.to_thread(self._following.join)
            self._follower = None

    async def _start(self) -> None:
        settings = self._settings
        self._checker = self._load_checker()
        self._store = store = await asyncio.to_thread(
            open_store,
            settings.database_url,
            vocabulary=lambda: self.checker.policy.vocabulary,
            clock=self._clock,
            migrate=False,
            verify=False,
        )
        if self._follows:
            # Before there is a folder for a replica of it.
            prepared = await asyncio.to_thread(prepare_database, settings)
        self._view = view = open_view(settings)
        if self._follows:
            await self._follow(store, prepared=prepared)
        self._grpc = server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", settings.max_message_bytes),
                ("grpc.max_send_message_length", settings.max_message_bytes),
                ("grpc.so_reuseport", 0 if self._follows else 1),
            ],
        )
        self._add_servicers(server, store, view)
        self.address = listen(server, settings)
        await self._health.add_to(server)
        await server.start()
        await self._health.watch(view, store.directory, max_staleness_s=settings.max_staleness_s)

    @property
    def checker(self) -> Checker:
        """What decides now: one policy version, until the next is swapped in whole."""
        assert self._checker is not None  # noqa: S101  the first thing that a start makes
        return self._checker

    @property
    def view(self) -> ReplicaView:
        """The replica that is served."""
        assert self._view is not None  # noqa: S101  there as long as it serves
        return self._view

    def reload_policy(self) -> None:
        """Load and compile the policy again, beside the one that decides, and swap it in.

        One with faults changes nothing, and is logged with all of them.
        """
        before = self.checker.policy.version
        try:
            self._checker = checker = self._load_checker()
        except AuthzError as error:
            log.error("policy not reloaded", kept_version=before, error=error.message)  # noqa: TRY400  told whole
        else:
            if self._authorization is not None:
                self._authorization.checker = checker
            log.info("policy reloaded", policy_version=self.checker.policy.version, before=before)

    def _load_checker(self) -> Checker:
        policy = load_server_policy(self._settings)
        return Checker(policy, inline_types=self._settings.inline_type_names)

    async def _follow(self, store: Store, *, prepared: bool) -> None:
        """Follow in a thread; return once the replica is at the head, or the database is away."""
        self._follower = follower = open_follower(self._settings, store, prepared=prepared)
        self._following = threading.Thread(target=follower.run, name="follower", daemon=True)
        self._following.start()
        store.directory.subscribe(follower.apply_local_commit)
        await asyncio.to_thread(follower.initialized.wait)

    def _add_servicers(self, server: grpc.aio.Server, store: Store, view: ReplicaView) -> None:
        settings = self._settings
        gate = ConsistencyGate(
            view, store.directory, pool=self._pool, freshness_wait_s=settings.freshness_wait_s
        )
        pipeline = Pipeline(
            # Without an authority no client shows a certificate, and to ask gRPC for one takes time.
            authenticators=(CertificateAuthenticator(),) if settings.tls_client_ca_file else (),
            permissions=AllowAll(),
            max_concurrent_calls=settings.max_concurrent_calls,
            max_watches=settings.max_watches,
        )
        self._authorization = AuthorizationServicer(self.checker, gate, self._clock)
        self._writing = GroupCommitter(store.directory)
        writer = DirectoryWriter(store.directory, gate, self._writing)
        self._watches = watches = Watches(
            store.directory,
            gate,
            WatchMessages(max_message_bytes=settings.max_message_bytes),
            write_timeout_s=settings.watch_write_timeout_s,
        )
        endpoints = (
            *endpoints_of(self._authorization),
            *endpoints_of(DirectoryServicer(store.directory, gate, writer)),
            *endpoints_of(WatchServicer(watches)),
        )
        server.add_generic_rpc_handlers((Endpoints(pipeline, endpoints),))
        names = (AUTHORIZATION, DIRECTORY, WATCH, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)


def open_view(settings: Settings) -> ReplicaView:
    """The replica of this machine, to be read."""
    return ReplicaView(
        replica_folder(settings),
        source=settings.database_url,
        max_bytes=settings.replica_max_bytes,
        max_staleness_s=settings.max_staleness_s,
    )


def open_follower(settings: Settings, store: Store, *, prepared: bool) -> Follower:
    """What keeps the replica of this machine up to date, and prepares the database if nobody could."""
    return Follower(
        store.directory,
        replica_folder(settings),
        source=settings.database_url,
        max_bytes=settings.replica_max_bytes,
        prepare=None if prepared else _preparation(settings),
    )


def prepare_database(settings: Settings) -> bool:
    """Make sure of the schema. False when the database is away and this machine has a replica of it, so
    that there is something to begin with.

    Raises `UnavailableError` when there is none, `FailedPreconditionError` for a schema of another version.
    """
    try:
        _preparation(settings)()
    except UnavailableError as error:
        state = SharedState(replica_folder(settings))
        try:
            if not state.follows(settings.database_url):
                raise
        finally:
            state.close()
        log.warning("starting without the database", error=error.message)
        return False
    return True


def _preparation(settings: Settings) -> Callable[[], None]:
    return partial(prepare_store, settings.database_url, migrate=settings.migrate_on_start)


def replica_folder(settings: Settings) -> Path:
    """Where the replica of this machine is."""
    if settings.replica_dir:
        return Path(settings.replica_dir)
    return companion_path(settings.database_url, ".replica")


def load_server_policy(settings: Settings) -> CompiledPolicy:
    """The policy that the settings name. Raises `PolicyError` with all its faults."""
    policy = load_policy(Path(settings.policy_dir) if settings.policy_dir else policy_directory())
    for name in settings.inline_type_names:
        policy.vocabulary.require_type(name)
        if name in STRUCTURAL_TYPES:
            raise InvalidArgumentError(
                ErrorReason.MALFORMED_FIELD,
                f"AUTHZ_INLINE_TYPES names `{name}`, which must be registered; leave it out",
                field="AUTHZ_INLINE_TYPES",
            )
    return policy


def schedule_as_batch() -> None:
    """Let no thread of this process cut in on another that runs. Call before any is started: they inherit it.

    A call is handed from thread to thread, and one that is woken in the middle of what its waker has still
    to do makes both wait. Where there is no such policy, or it is not allowed, all works as well, but slower.
    """
    if hasattr(os, "SCHED_BATCH"):
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def tune_interpreter() -> None:
    """Set the interpreter up for a process that does nothing but serve. Call once all is loaded."""
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    # What is there now stays; looking through it again and again for garbage would stop every call.
    gc.collect()
    gc.freeze()


async def serve(settings: Settings) -> None:
    """Serve in this process until SIGTERM or SIGINT, then let calls in flight finish."""
    configure_logging(settings.log_level)
    if settings.schedule_as_batch:
        schedule_as_batch()
    reload_signal = ReloadSignal()
    async with Server(settings) as server:
        log.info("serving", address=server.address, policy_version=server.checker.policy.version)
        tune_interpreter()
        with exporting(settings.metrics_address, server.view, lambda: 1):
            await run_until_stopped(reload_signal, server.reload_policy)
    log.info("stopped")
