"""One serving process: starts its parts in order, and stops them in the reverse order."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import structlog

from authz.audit.decision_log import DecisionLog
from authz.domain.consistency import MINIMIZE_LATENCY
from authz.domain.instants import Instant
from authz.domain.ports import Snapshot
from authz.domain.tokens import TokenKeys
from authz.engine.clock import DecisionClock
from authz.engine.policies import CompiledPolicies
from authz.replica.follower import Follower
from authz.replica.view import ReplicaView
from authz.runtime.api import CHECKS, OF_THE_DATABASE, Api, open_limiter
from authz.runtime.authentication import (
    Authentication,
    open_authentication,
    warn_if_unauthenticated,
)
from authz.runtime.checkpoints import open_checkpoints
from authz.runtime.compose import (
    open_follower,
    open_view,
    prepare_database,
    require_inline_types,
    system_clock,
    wanted_tracing,
)
from authz.runtime.decision_log import open_decision_log
from authz.runtime.faces import Face, GrpcFace
from authz.runtime.health import Health
from authz.runtime.maintenance import keep_view_current
from authz.runtime.settings import Settings
from authz.runtime.signals import run_abandonable
from authz.store import Store, open_store

if TYPE_CHECKING:
    from authz.runtime.tracing import Tracing

log = structlog.get_logger()

_DATABASE_GRACE_S = 2.0
"""How long a stop waits for the database after the last call has ended."""
_TRACES_GRACE_S = 2.0
"""How long a stop waits for the collector to accept the last spans."""
_DRAIN_POLL_S = 0.01
_SEND_GRACE_S = 0.1
"""How long a stop waits after the last answer: gRPC sends it in threads of its own."""
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
        tracing: Tracing | None = None,
        decisions: DecisionLog | None = None,
    ) -> None:
        """`face` is what clients reach; without one, grpc.aio. `on_health` is called as `Health` does.
        `tracing` makes the spans and `decisions` is the decision log; without them, the settings say whether
        there are any."""
        self._settings = settings
        self._face = face
        self._clock = clock
        self.decision_clock = DecisionClock(clock)
        self.health = Health(CHECKS, OF_THE_DATABASE, on_health)
        self._pool = ThreadPoolExecutor(settings.read_threads, thread_name_prefix="read")
        self.policy_version = ""
        """The number of the version that was active at the start; empty if it was not known."""
        self._authentication = Authentication()
        self._tracing = tracing
        self._decisions = decisions
        self._api: Api | None = None
        self._store: Store | None = None
        self._view: ReplicaView | None = None
        self._maintenance: asyncio.Task[None] | None = None
        self._background: list[asyncio.Task[None]] = []
        self.follower: Follower | None = None
        self._follower_thread: threading.Thread | None = None
        self.address = settings.address

    async def __aenter__(self) -> Server:
        """Start."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop, and let calls in flight finish."""
        await self.stop(grace_s=self._settings.stop_grace_s)

    async def start(self) -> None:
        """Open store and replica, compile the policy, listen, and only then report health as serving."""
        try:
            await self._start()
        except BaseException:
            await self.stop(grace_s=0)
            raise

    async def stop(self, *, grace_s: float) -> None:
        """Refuse new calls, end watches, let calls in flight finish for `grace_s`, close the store.

        Then waits for the database for two seconds at most. Idempotent.
        """
        await self.health.drain()
        if self._face is not None:
            await self._drain(grace_s)
            await self._face.stop()
            self._face = None
        self._authentication.close()
        if self._tracing is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_TRACES_GRACE_S):
                    await run_abandonable(self._tracing.close)
            self._tracing = None
        with self._aborting_connections():
            await self._end_threads()
        await _cancel(self._maintenance)
        self._maintenance = None
        if self._view is not None:
            self._view.close()
            self._view = None
        if self._store is not None:
            self._store.close()
            self._store = None

    async def _drain(self, grace_s: float) -> None:
        """Refuse new calls, end watches, and wait for the calls in flight, `grace_s` at most."""
        api = self._api
        if api is None or not grace_s:
            return
        api.pipeline.stop()
        # A watch never ends by itself.
        api.watches.stop()
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                while api.pipeline.calls_in_flight:  # noqa: ASYNC110  each call would set the event
                    await asyncio.sleep(_DRAIN_POLL_S)
                await asyncio.sleep(_SEND_GRACE_S)

    @contextmanager
    def _aborting_connections(self) -> Iterator[None]:
        """Bound the time that the block waits for the database."""
        if self._store is None:
            yield
            return
        abort = self._store.directory.abort_connections
        timer = asyncio.get_running_loop().call_later(_DATABASE_GRACE_S, abort)
        try:
            yield
        finally:
            timer.cancel()

    async def _end_threads(self) -> None:
        while self._background:
            await _cancel(self._background.pop())
        if self._api is not None:
            await self._api.committer.close()
            self._api.active.close()
            self._api = None
        if self._decisions is not None:
            await asyncio.to_thread(self._decisions.close)
            self._decisions = None
        await asyncio.to_thread(self._pool.shutdown, cancel_futures=True)
        if self.follower is not None and self._follower_thread is not None:
            self.follower.stop()
            # A follower that brings the schema up to date may wait for the database for longer.
            await asyncio.to_thread(self._follower_thread.join, 2 * _DATABASE_GRACE_S)
            self.follower = None

    async def _start(self) -> None:
        settings, keys = self._settings, TokenKeys()
        open_limiter(settings)  # a file with a mistake ends the start before anything is made
        self._tracing = self._tracing or wanted_tracing(settings)
        self._authentication = await asyncio.to_thread(open_authentication, settings, self._newest)
        self._store = store = await asyncio.to_thread(
            open_store,
            settings.database_url,
            password_file=settings.database_password_file,
            vocabularies=_POLICIES.vocabulary,
            clock=self._clock,
            keys=keys,
            erasure_grace_s=settings.erasure_grace_s,
        )
        if settings.follow:
            # First, so that a start that fails leaves no replica folder.
            prepared = await run_abandonable(prepare_database, settings, self._clock)
        self._view = view = open_view(settings, keys)
        self._maintenance = asyncio.create_task(keep_view_current(view, self.decision_clock))
        if settings.follow:
            await self._follow(store, prepared=prepared)
        await self._serve(store, view, keys)

    async def _serve(self, store: Store, view: ReplicaView, keys: TokenKeys) -> None:
        settings = self._settings
        face = self._face = self._face or GrpcFace(settings)
        self._decisions = self._decisions or open_decision_log(settings, store.decisions)
        checkpoints = open_checkpoints(settings, store, self._clock)
        api = Api(
            settings=settings,
            policies=_POLICIES,
            store=store,
            view=view,
            keys=keys,
            pool=self._pool,
            clock=self.decision_clock,
            authenticators=self._authentication.authenticators,
            tracing=self._tracing,
            decisions=self._decisions,
        )
        api.add_to(face.server)
        self._api = api
        await self._compile_active_policy()
        await self.health.add_to(face.server)
        self.address = await face.start()
        warn_if_unauthenticated(settings)
        background = (*api.background(), *checkpoints)
        self._background = [asyncio.create_task(run()) for run in background]
        await self.health.watch(api.active, view, store.directory, max_staleness_s=settings.max_staleness_s)

    async def _compile_active_policy(self) -> None:
        """Be ready for the first check. Raises `InvalidArgumentError` as `require_inline_types`.

        Without a state that it can read, or with a policy that this release cannot read, the server starts
        all the same: it refuses checks, and its health says so, until that changes.
        """
        assert self._api is not None  # noqa: S101  made just before
        try:
            _, checker = await self._api.active.get(MINIMIZE_LATENCY, None)
        except Exception as error:  # noqa: BLE001  a damaged replica, say: each check then meets the same error
            log.warning("checks are refused", cause=str(error))
            return
        require_inline_types(self._settings, checker.policy.vocabulary)
        self.policy_version = checker.version

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
        self._follower_thread = threading.Thread(target=follower.run, name="follower", daemon=True)
        self._follower_thread.start()
        store.directory.subscribe(follower.apply_local_commit)
        await run_abandonable(follower.initialized.wait)


async def _cancel(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
