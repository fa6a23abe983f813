"""Builds the parts of the service from `Settings`: policy, store, replica, follower and servicers."""

from __future__ import annotations

import mmap
import stat
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import msgspec
import structlog
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection, reflection_pb2

from authz.access.authentication import Authenticator
from authz.access.permission import AllowAll
from authz.access.watched_file import WatchedFile
from authz.api.call import CallKind
from authz.api.decisions import DecisionRecorder
from authz.api.endpoints import Servicer, endpoints_of
from authz.api.grpc.adapter import add_endpoints
from authz.api.grpc.audit import AuditServicer
from authz.api.grpc.authorization import AuthorizationServicer
from authz.api.grpc.directory import DirectoryServicer
from authz.api.grpc.watch import WatchServicer
from authz.api.limits import Limiter, parse_limits
from authz.api.permissions import PolicyPermissions
from authz.api.pipeline import Pipeline
from authz.audit.decision_log import DecisionLog
from authz.domain.decisions import STRUCTURAL_TYPES
from authz.domain.errors import ErrorReason, InvalidArgumentError, UnavailableError, malformed
from authz.domain.files import files_text
from authz.domain.instants import Instant
from authz.domain.ports import Directory, View
from authz.domain.tokens import TokenKeys
from authz.domain.vocabulary import Vocabulary
from authz.engine.clock import DecisionClock
from authz.engine.consistency import ConsistencyGate
from authz.engine.directory_warnings import PolicyWarnings
from authz.engine.drafts import Drafting
from authz.engine.group_commit import GroupCommitter
from authz.engine.policies import ActiveChecker, CompiledPolicies
from authz.engine.publish import first_version
from authz.engine.rights import Rights
from authz.engine.shadow import Shadow
from authz.engine.turns import Turns
from authz.engine.watch import Watches
from authz.engine.write import DirectoryWriter
from authz.policy.load import policy_directory
from authz.policy.versions import read_folder
from authz.replica.follower import Follower
from authz.replica.shared_state import STATE_FILE, SharedState
from authz.replica.view import ReplicaView
from authz.runtime.policies import (
    open_checker,
    open_past,
    open_publisher,
    policy_servicer,
    scheduled_publisher,
)
from authz.runtime.privacy import open_upkeep, privacy_servicer
from authz.runtime.settings import TABLE, Settings, invalid_setting
from authz.store import FirstWrite, Store, companion_path, database_name, prepare_store, sqlite_file
from authz.v1 import audit_pb2, authorization_pb2, directory_pb2, policy_pb2, privacy_pb2, watch_pb2
from authz.wire.changes import WatchMessages

if TYPE_CHECKING:
    from authz.runtime.tracing import Tracing

log = structlog.get_logger()

CHECKS = authorization_pb2.DESCRIPTOR.services_by_name["AuthorizationService"].full_name
OF_THE_DATABASE = tuple(
    service.full_name
    for module in (audit_pb2, directory_pb2, policy_pb2, privacy_pb2, watch_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
)
"""The services that answer only while the database does."""

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class Servicers(msgspec.Struct, frozen=True):
    """The parts of the API that a server asks, runs or stops."""

    pipeline: Pipeline
    active: ActiveChecker
    watches: Watches[watch_pb2.WatchResponse]
    writing: GroupCommitter
    background: tuple[Callable[[], Coroutine[Any, Any, None]], ...]
    """What else to run as long as the server serves."""


def system_clock() -> Instant:
    """The time now, from the machine."""
    return time.time_ns() // 1000


def require_inline_types(settings: Settings, vocabulary: Vocabulary) -> None:
    """Raise `InvalidArgumentError` for a name in AUTHZ_INLINE_TYPES that no request may describe."""
    for name in sorted(settings.inline_type_names):
        try:
            vocabulary.require_type(name)
        except InvalidArgumentError as error:
            error.locate("AUTHZ_INLINE_TYPES")
            raise
        if name in STRUCTURAL_TYPES:
            raise malformed("AUTHZ_INLINE_TYPES", f"names `{name}`, which must be registered; leave it out")


def first_write(clock: Callable[[], Instant]) -> FirstWrite:
    """The write of the shipped policy, which a new database begins with."""
    files = files_text(read_folder(policy_directory()))
    return FirstWrite(first_version(files, clock()), clock)


def replica_folder(settings: Settings) -> Path:
    """The folder of this machine's replica."""
    if settings.replica_dir:
        return Path(settings.replica_dir)
    return companion_path(settings.database_url, ".replica")


def open_view(settings: Settings, keys: TokenKeys | None = None) -> ReplicaView:
    """Open this machine's replica for reading. `keys`, if given, learn the key of its tokens.

    Raises `InvalidArgumentError` if this process may not map as much as the replica may hold.
    """
    _require_address_space(settings.replica_max_bytes)
    return ReplicaView(
        replica_folder(settings),
        source=database_name(settings.database_url),
        max_bytes=settings.replica_max_bytes,
        max_staleness_s=settings.max_staleness_s,
        keys=keys,
    )


def _require_address_space(size_bytes: int) -> None:
    try:
        mmap.mmap(-1, size_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ).close()
    except (OSError, OverflowError) as error:
        raise invalid_setting(
            "AUTHZ_REPLICA_MAX_BYTES",
            f"cannot map {size_bytes} bytes, the maximum size of the replica ({error});"
            " lower AUTHZ_REPLICA_MAX_BYTES, or raise the limit on address space (`ulimit -v`)",
        ) from None


def open_follower(settings: Settings, directory: Directory, *, prepared: bool) -> Follower:
    """The follower of this machine's replica. Unless `prepared`, it first brings the schema up to date."""
    return Follower(
        directory,
        replica_folder(settings),
        source=database_name(settings.database_url),
        max_bytes=settings.replica_max_bytes,
        prepare=None if prepared else _preparation(settings),
    )


def prepare_database(settings: Settings, clock: Callable[[], Instant] = system_clock) -> bool:
    """Bring the schema up to date, or require that it is, by `migrate_on_start`.

    With `migrate_on_start`, a database without a policy gets the shipped one. Returns False when the database
    is away and this machine has a replica of it to start with. Raises
    `UnavailableError` when it has none, or when the database refuses the settings, which does not pass by
    itself; `FailedPreconditionError` for a schema of another version.

    Warns of files that other users may read.
    """
    _warn_of_readers(settings)
    try:
        _preparation(settings, clock)()
    except UnavailableError as error:
        if error.reason is ErrorReason.STORE_MISCONFIGURED or not has_replica(settings):
            raise
        log.warning(
            "starting without the database", error=error.message, notes=getattr(error, "__notes__", [])
        )
        return False
    return True


def _warn_of_readers(settings: Settings) -> None:
    for path in (sqlite_file(settings.database_url), replica_folder(settings)):
        if path is not None and path.exists() and path.stat().st_mode & _OTHERS:
            log.warning(
                "other users may read who may do what; take the right away: chmod go=", path=str(path)
            )


def has_replica(settings: Settings) -> bool:
    """Whether this machine has a replica of the database, however stale. Makes no folder for one."""
    folder = replica_folder(settings)
    if not (folder / STATE_FILE).exists():
        return False
    state = SharedState(folder)
    try:
        return state.follows(database_name(settings.database_url))
    finally:
        state.close()


def _preparation(settings: Settings, clock: Callable[[], Instant] = system_clock) -> Callable[[], None]:
    migrate = settings.migrate_on_start
    first = first_write(clock) if migrate else None

    def prepare() -> None:
        prepare_store(
            settings.database_url,
            password_file=settings.database_password_file,
            migrate=migrate,
            # A machine with a replica had a database. An empty one would take every right away, silently.
            create=not has_replica(settings),
            first=first,
        )

    return prepare


def wanted_tracing(settings: Settings) -> Tracing | None:
    """Traces, if the settings ask for them. Raises `InvalidArgumentError` if they cannot be made."""
    if not settings.traces:
        return None
    try:
        from authz.runtime.tracing import open_tracing
    except ModuleNotFoundError:
        raise invalid_setting(
            "AUTHZ_TRACES",
            "AUTHZ_TRACES is set, and OpenTelemetry is not installed; run"
            " `pip install 'qalamchat-authz[otel]'`, or unset it",
        ) from None
    return open_tracing()


def _gate(  # noqa: PLR0917  parts, each of a type of its own
    settings: Settings,
    view: View,
    directory: Directory,
    keys: TokenKeys,
    pool: ThreadPoolExecutor,
    tracing: Tracing | None,
) -> ConsistencyGate:
    gate = ConsistencyGate if tracing is None else tracing.gate
    return gate(
        view,
        directory,
        keys=keys,
        pool=pool,
        freshness_timeout_s=settings.freshness_timeout_s,
        replication_timeout_s=settings.replication_timeout_s,
    )


def _pipeline(
    settings: Settings,
    authenticators: Sequence[Authenticator],
    active: ActiveChecker,
    clock: DecisionClock,
    tracing: Tracing | None,
    *,
    decisions: DecisionLog | None,
) -> Pipeline:
    pipeline = Pipeline if tracing is None else tracing.pipeline
    return pipeline(
        authenticators=authenticators,
        decisions=None if decisions is None else DecisionRecorder(decisions, lambda: clock.at(0)),
        permissions=PolicyPermissions(active, clock) if authenticators else AllowAll(),
        concurrency_limits={
            CallKind.DECISION: settings.max_checks,
            CallKind.BATCH: settings.max_batches,
            CallKind.LIST: settings.max_lists,
            CallKind.READ: settings.max_reads,
            CallKind.WRITE: settings.max_writes,
            CallKind.IMPORT: settings.max_imports,
            CallKind.WATCH: settings.max_watches,
            CallKind.POLICY: settings.max_policy_calls,
        },
        limiter=open_limiter(settings),
    )


def open_limiter(settings: Settings) -> Limiter | None:
    """The limiter for AUTHZ_LIMITS_FILE, if it is set.

    Raises `InvalidArgumentError` for a file that cannot be used.
    """
    if not settings.limits_file:
        return None
    return Limiter(WatchedFile(settings.limits_file, parse_limits, holds="limits", keeps_last=True))


def add_servicers(
    server: Any,
    settings: Settings,
    *,
    policies: CompiledPolicies,
    store: Store,
    view: View,
    keys: TokenKeys,
    pool: ThreadPoolExecutor,
    clock: DecisionClock,
    authenticators: Sequence[Authenticator],
    tracing: Tracing | None,
    decisions: DecisionLog | None,
) -> Servicers:
    """Add every service of the API, and reflection, to the `server` of a face."""
    directory = store.directory
    gate, turns = _gate(settings, view, directory, keys, pool, tracing), Turns()
    active = open_checker(settings, gate, policies, tracing)
    pipeline = _pipeline(settings, authenticators, active, clock, tracing, decisions=decisions)
    writing = GroupCommitter(directory)
    writer = _writer(settings, directory, gate, writing)
    publisher = open_publisher(directory, gate, writer, policies, clock, PolicyWarnings(gate, active, turns))
    past = open_past(settings, directory, gate, policies, keys)
    rights = Rights(active, publisher, gate, clock, turns)
    watches = _watches(settings, store, gate, turns)
    drafting = Drafting(store.drafts, publisher, gate, clock)
    shadow = Shadow(store.shadows, gate, active, clock)
    upkeep = open_upkeep(settings, store, gate, writing, view, replica_folder(settings))
    servicers: tuple[Servicer, ...] = (
        AuthorizationServicer(active, past, turns, clock, keys, shadow=shadow),
        DirectoryServicer(directory, gate, turns, writer, rights=rights),
        policy_servicer(settings, store, publisher, drafting, gate, active, turns, clock, rights),
        WatchServicer(watches),
        privacy_servicer(settings, store, gate, writing, upkeep, rights),
        _audit_servicer(settings, store, gate, turns, rights),
    )
    add_endpoints(server, pipeline, tuple(chain.from_iterable(map(endpoints_of, servicers))))
    _add_reflection(server)
    scheduled = scheduled_publisher(store, drafting, rights, gate, clock, authenticators)
    return Servicers(pipeline, active, watches, writing, (*upkeep.background, scheduled.run, shadow.run))


def _audit_servicer(
    settings: Settings, store: Store, gate: ConsistencyGate, turns: Turns, rights: Rights
) -> AuditServicer:
    return AuditServicer(
        store.audit,
        store.decisions,
        gate,
        turns,
        proofs=store.proofs,
        checkpoints=store.checkpoints,
        rights=rights,
        logs_to_database=TABLE in settings.decision_sinks,
    )


def _writer(
    settings: Settings, directory: Directory, gate: ConsistencyGate, writing: GroupCommitter
) -> DirectoryWriter:
    return DirectoryWriter(
        directory,
        gate,
        writing,
        idle_timeout_s=settings.import_idle_timeout_s,
        max_import_s=settings.max_import_s,
    )


def _watches(
    settings: Settings, store: Store, gate: ConsistencyGate, turns: Turns
) -> Watches[watch_pb2.WatchResponse]:
    return Watches(
        store.directory,
        gate,
        WatchMessages(max_message_bytes=settings.max_message_bytes),
        turns,
        recipients=store.recipients,
        write_timeout_s=settings.watch_write_timeout_s,
        max_watch_s=settings.max_watch_s,
    )


def _add_reflection(server: Any) -> None:
    """Answer reflection as v1, too: its messages are those of v1alpha, the only ones in the library."""
    names = (CHECKS, *OF_THE_DATABASE, health.SERVICE_NAME, reflection.SERVICE_NAME)
    servicer = reflection.aio.ReflectionServicer(names)
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for name in (reflection.SERVICE_NAME, "grpc.reflection.v1.ServerReflection"):
        server.add_registered_method_handlers(name, {"ServerReflectionInfo": handler})
