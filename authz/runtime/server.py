"""One serving process: starts its parts in order, and stops them in the reverse order."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING, Any

import structlog

from authz.access.authentication import Authenticator
from authz.api.grpc.adapter import refuse_unknown_methods
from authz.audit.decision_log import DecisionLog
from authz.domain.consistency import MINIMIZE_LATENCY
from authz.domain.errors import ErrorReason, UnavailableError
from authz.domain.instants import Instant
from authz.domain.ports import Snapshot
from authz.domain.tokens import TokenKeys
from authz.engine.clock import DecisionClock
from authz.engine.policies import CompiledPolicies
from authz.replica.follower import Follower
from authz.replica.view import ReplicaView
from authz.runtime.api import CHECKS, OF_THE_DATABASE, Api
from authz.runtime.audit import open_checkpoints, open_decision_log
from authz.runtime.authentication import open_authentication, warn_of_open_access
from authz.runtime.compose import (
    open_follower,
    open_view,
    prepare_database,
    replica_folder,
    require_inline_types,
    system_clock,
    tracing_module,
)
from authz.runtime.faces import Face, GrpcFace
from authz.runtime.health import Health
from authz.runtime.lifecycle import run_abandonable
from authz.runtime.maintenance import keep_view_current
from authz.runtime.preflight import require_startable
from authz.runtime.settings import Settings
from authz.store import Store, open_store

if TYPE_CHECKING:
    from authz.runtime.tracing import Tracing

log = structlog.get_logger()

_DATABASE_GRACE_S = 2.0
"""How long a stop waits for the database after the last call has ended."""
_TRACES_GRACE_S = 2.0
"""How long a stop waits for the collector to accept the last spans."""
_RECONNECT_S = 1.0
"""How long a stop waits for clients that make no call to reconnect elsewhere."""
_DRAIN_POLL_S = 0.01
_SEND_GRACE_S = 0.1
"""How long a stop waits after the last answer: gRPC sends it in threads of its own."""
_OF_THE_REPLICA = (ErrorReason.REPLICA_NOT_READY, ErrorReason.TOO_STALE)
_POLICIES = CompiledPolicies()
"""Of all servers of this process: tests of an application start many, and each policy is compiled once."""


class Server:
    """One serving process. An async context manager: inside the block it serves at `address`.

    With `settings.follow` a thread of it keeps the replica up to date; without, another process of this
    machine must, which has also migrated the database. Entering raises
    `InvalidArgumentError`, `FailedPreconditionError` or, as `prepare_database`, `UnavailableError` when it
    cannot serve; then nothing is left running.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], Instant] = system_clock,
        face: Face | None = None,
        on_health: Callable[[str], None] = lambda _: None,
        decisions: DecisionLog | None = None,
    ) -> None:
        """`face` is what clients reach; without one, grpc.aio. `on_health` is called as `Health` does.
        `decisions` is the decision log; without one, the settings say whether there is any."""
        self._settings = settings
        self._face = face
        self._clock = clock
        self.decision_clock = DecisionClock(clock)
        self.health = Health(CHECKS, OF_THE_DATABASE, on_health)
        self.policy_version = ""
        """The number of the version that was active at the start; empty if it was not known."""
        self._tracing: Tracing | None = None
        self._decisions = decisions
        self._parts = AsyncExitStack()
        """Ends the parts, the last one that started first. Those of a failed start, too."""
        self._of_database = AsyncExitStack()
        """Ends the parts that may wait for the database."""
        self._api: Api | None = None
        self._view: ReplicaView | None = None
        self.follower: Follower | None = None
        self.address = settings.address

    async def __aenter__(self) -> Server:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop(grace_s=self._settings.stop_grace_s)

    async def start(self) -> None:
        """Open store and replica, compile the policy, listen, and only then report health as serving."""
        try:
            await self._start()
        except BaseException:
            await self.stop(grace_s=0)
            raise

    async def stop(self, *, grace_s: float) -> None:
        """End watches, send clients elsewhere, let calls in flight finish for `grace_s`, close the store.

        Then waits for the database for two seconds at most. Idempotent.
        """
        await self.health.drain()
        if self._api is not None and self._face is not None and grace_s:
            await _drain(self._api, self._face, grace_s)
        self._api = None
        await self._parts.aclose()

    async def _start(self) -> None:
        settings, keys, parts = self._settings, TokenKeys(), self._parts
        require_startable(settings)
        face = self._face = self._face or GrpcFace(settings)
        if settings.traces:
            self._tracing = tracing_module().open_tracing()
            parts.push_async_callback(_close_traces, self._tracing)
        authenticators, close = await run_abandonable(open_authentication, settings, self._newest)
        parts.callback(close)
        store = await asyncio.to_thread(
            open_store,
            settings.database_url,
            password_file=settings.database_password_file,
            vocabularies=_POLICIES.vocabulary,
            clock=self._clock,
            keys=keys,
            erasure_grace_s=settings.erasure_grace_s,
        )
        parts.callback(store.close)
        if settings.follow:
            # First, so that a start that fails leaves no replica folder.
            prepared = await run_abandonable(prepare_database, settings, self._clock)
        self._view = view = open_view(settings, keys)
        parts.callback(view.close)
        self._run(keep_view_current(view, self.decision_clock), parts)
        parts.push_async_callback(_close_within_grace, self._of_database, store)
        if settings.follow:
            await self._follow(store, prepared=prepared)
        await self._serve(face, store, keys, authenticators)

    async def _serve(
        self, face: Face, store: Store, keys: TokenKeys, authenticators: Sequence[Authenticator]
    ) -> None:
        settings, parts, view = self._settings, self._of_database, self.view
        pool = ThreadPoolExecutor(settings.read_threads, thread_name_prefix="read")
        computing_pool = ThreadPoolExecutor(1, thread_name_prefix="compute")
        for each in (pool, computing_pool):
            parts.push_async_callback(asyncio.to_thread, each.shutdown, cancel_futures=True)
        decisions = self._decisions or open_decision_log(settings, store, view.generation)
        if decisions is not None:
            parts.push_async_callback(asyncio.to_thread, decisions.close)
        checkpoints = open_checkpoints(settings, store, self._clock)
        self._api = api = Api(
            settings=settings,
            policies=_POLICIES,
            store=store,
            view=view,
            keys=keys,
            pool=pool,
            computing_pool=computing_pool,
            clock=self.decision_clock,
            authenticators=authenticators,
            tracing=self._tracing,
            decisions=decisions,
            database_fault=self.health.database_fault,
        )
        api.add_to(face.server)
        parts.callback(api.active.close)
        parts.push_async_callback(api.committer.close)
        await self._compile_active_policy(api)
        await self.health.add_to(face.server)
        refuse_unknown_methods(face.server)
        for run in (*api.background(), *checkpoints):
            self._run(run(), parts)
        self._parts.push_async_callback(face.stop)
        self.address = await face.start()
        warn_of_open_access(settings)
        await self.health.watch(api.active, view, store.directory, max_staleness_s=settings.max_staleness_s)

    @staticmethod
    def _run(work: Coroutine[Any, Any, None], parts: AsyncExitStack) -> None:
        """Run in the background until the parts end."""
        parts.push_async_callback(_cancel, asyncio.create_task(work))

    async def _compile_active_policy(self, api: Api) -> None:
        """Be ready for the first check. Raises `InvalidArgumentError` as `require_inline_types`.

        Without a state that it can read, or with a policy that this release cannot read, the server starts
        all the same: it refuses checks, and its health says so, until that changes.
        """
        try:
            _, checker, _ = await api.active.get(MINIMIZE_LATENCY, None)
        except Exception as error:  # noqa: BLE001  a damaged replica, say: each check then meets the same error
            self._warn_of_refusals(error)
            return
        require_inline_types(self._settings, checker.policy.vocabulary)
        self.policy_version = checker.version

    def _warn_of_refusals(self, error: Exception) -> None:
        if self._settings.follow or not _lacks_replica(error):
            log.warning("checks are refused", cause=str(error))
            return
        log.warning(
            "no fresh replica yet, so checks are refused;"
            " run `authz follow` with the same AUTHZ_DATABASE_URL and AUTHZ_REPLICA_DIR",
            folder=str(replica_folder(self._settings).absolute()),
        )

    def _newest(self) -> tuple[Snapshot, Instant]:
        """The newest state, and the time of decisions on it."""
        snapshot = self.view.snapshot()
        return snapshot, self.decision_clock.at(snapshot.state.committed_at)

    @property
    def view(self) -> ReplicaView:
        """The replica that this process reads."""
        assert self._view is not None  # noqa: S101  there as long as it serves
        return self._view

    async def _follow(self, store: Store, *, prepared: bool) -> None:
        """Follow in a thread; return once the replica is at the head, or the database is away."""
        self.follower = follower = open_follower(self._settings, store.directory, prepared=prepared)
        thread = threading.Thread(target=follower.run, name="follower", daemon=True)
        thread.start()
        # A follower that brings the schema up to date may wait for the database for longer.
        self._of_database.push_async_callback(asyncio.to_thread, thread.join, 2 * _DATABASE_GRACE_S)
        self._of_database.callback(follower.stop)
        store.directory.subscribe(follower.apply_local_commit)
        await run_abandonable(follower.initialized.wait)


async def _drain(api: Api, face: Face, grace_s: float) -> None:
    """End watches, send clients elsewhere, and wait for the calls in flight, `grace_s` at most.

    While calls that began before are in flight, new ones are answered: their clients may not have been asked
    to reconnect. Those that come after are refused.
    """
    # A watch never ends by itself.
    api.watches.stop()
    # An import may last for an hour. Cut off at the end, it would not learn what it has written.
    ending = asyncio.get_running_loop().call_later(grace_s / 2, api.writer.end_imports)
    with suppress(TimeoutError):
        async with asyncio.timeout(grace_s):
            await face.drain(min(_RECONNECT_S, grace_s / 4))
            await _ended(api.pipeline.calls_so_far())
            api.pipeline.stop()
            await _ended(api.pipeline.calls_so_far())
            await asyncio.sleep(_SEND_GRACE_S)
    ending.cancel()
    api.pipeline.stop()


async def _ended(calls: Callable[[], int]) -> None:
    """Return once there are no more of these calls."""
    while calls():  # noqa: ASYNC110  each call would set the event
        await asyncio.sleep(_DRAIN_POLL_S)


def _lacks_replica(error: Exception) -> bool:
    return isinstance(error, UnavailableError) and error.reason in _OF_THE_REPLICA


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


async def _close_traces(tracing: Tracing) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(_TRACES_GRACE_S):
            await run_abandonable(tracing.close)


async def _close_within_grace(parts: AsyncExitStack, store: Store) -> None:
    """Bound the time that the parts wait for the database."""
    abort = store.directory.abort_connections
    timer = asyncio.get_running_loop().call_later(_DATABASE_GRACE_S, abort)
    try:
        await parts.aclose()
    finally:
        timer.cancel()
