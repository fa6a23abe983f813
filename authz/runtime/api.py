"""Composes the API of one server."""

from __future__ import annotations

import socket
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health
from grpc_reflection.v1alpha import reflection, reflection_pb2

from authz.access.authentication import Authenticator
from authz.access.permission import AllowAll
from authz.access.watched_file import WatchedFile
from authz.api.call import CallKind
from authz.api.decisions import DecisionRecorder
from authz.api.endpoints import Servicer, endpoints_of
from authz.api.grpc.adapter import add_endpoints
from authz.api.grpc.answers import Answers
from authz.api.grpc.audit import AuditServicer
from authz.api.grpc.authorization import AuthorizationServicer
from authz.api.grpc.directory import DirectoryServicer
from authz.api.grpc.policy import PolicyServicer
from authz.api.grpc.privacy import PrivacyServicer
from authz.api.grpc.watch import WatchServicer
from authz.api.limits import Limiter, parse_limits
from authz.api.permissions import APPLY_POLICY, PolicyPermissions
from authz.api.pipeline import Pipeline
from authz.audit.decision_log import DecisionLog
from authz.domain.ports import View
from authz.domain.tokens import TokenKeys
from authz.engine.background_steps import BackgroundSteps
from authz.engine.clock import DecisionClock
from authz.engine.compare import Comparer
from authz.engine.consistency import ConsistencyGate
from authz.engine.directory_warnings import PolicyWarnings
from authz.engine.drafts import DraftEditor
from authz.engine.erasure import Eraser, ReplicaReporter
from authz.engine.exports import Exporter
from authz.engine.group_commit import GroupCommitter
from authz.engine.past import PastQuestions
from authz.engine.policies import ActiveChecker, CompiledPolicies
from authz.engine.preview.previewer import Previewer
from authz.engine.publish import Publisher
from authz.engine.retention import purge_steps
from authz.engine.rights import PersonRights
from authz.engine.scheduled import ScheduledPublisher
from authz.engine.shadow_control import ShadowControl
from authz.engine.shadow_runner import ShadowRunner
from authz.engine.turns import Turns
from authz.engine.watch import Watches
from authz.engine.write import DirectoryWriter
from authz.replica.temporary import temporary_snapshot
from authz.runtime.audit import decision_files
from authz.runtime.compose import replica_folder
from authz.runtime.settings import TABLE, Settings
from authz.store import Store
from authz.v1 import audit_pb2, authorization_pb2, directory_pb2, policy_pb2, privacy_pb2, watch_pb2
from authz.wire.changes import WatchMessages

if TYPE_CHECKING:
    from authz.runtime.tracing import Tracing

CHECKS = authorization_pb2.DESCRIPTOR.services_by_name["AuthorizationService"].full_name
OF_THE_DATABASE = tuple(
    service.full_name
    for module in (audit_pb2, directory_pb2, policy_pb2, privacy_pb2, watch_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
)
"""The services that answer only while the database does."""

_UNNAMED = "-"
_PATIENCE = 5
"""In seconds: about as long as one server searches a million rows for somebody who is erased."""


@dataclass(frozen=True, kw_only=True)
class Api:
    """The API of one server. Each part below is made when another first needs it."""

    settings: Settings
    store: Store
    view: View
    policies: CompiledPolicies
    keys: TokenKeys
    pool: ThreadPoolExecutor
    computing_pool: ThreadPoolExecutor
    clock: DecisionClock
    authenticators: Sequence[Authenticator]
    tracing: Tracing | None
    decisions: DecisionLog | None
    database_fault: Callable[[], str]

    def add_to(self, server: Any) -> None:
        """Add every service, and reflection, to the `server` of a face.

        Raises `InvalidArgumentError` for a limits file that cannot be used.
        """
        add_endpoints(server, self.pipeline, [*chain.from_iterable(map(endpoints_of, self._servicers()))])
        _add_reflection(server)

    def background(self) -> tuple[Callable[[], Coroutine[Any, Any, None]], ...]:
        """The background tasks, which run as long as the server serves."""
        directory, data = self.store.directory, self.store.personal_data
        removing = self._steps("removal", directory.removal_progress, directory.remove_contents)
        scheduled = ScheduledPublisher(
            drafts=self.store.drafts,
            draft_editor=self._draft_editor,
            rights=self._rights,
            gate=self._gate,
            clock=self.clock,
            permission=APPLY_POLICY,
            requires_caller=bool(self.authenticators),
        )
        purging = purge_steps(self.store.retention, self._gate, self.committer)
        found = [removing.run, self._erasing.run, purging.run, scheduled.run, self._shadow.run]
        name, files = self._replica_name(), decision_files(self.settings)
        if name or files:
            found.append(ReplicaReporter(data, self._gate, self.view, name=name, files=files).run)
        return tuple(found)

    def _replica_name(self) -> str:
        """The name of this machine in certificates; empty if it is in none."""
        name, folder = self.settings.replica_name, replica_folder(self.settings).absolute()
        return "" if name == _UNNAMED else name or f"{socket.gethostname()}:{folder}"

    def _servicers(self) -> tuple[Servicer, ...]:
        store, gate, turns = self.store, self._gate, self._turns
        data, rights = store.personal_data, self._rights
        exporter = Exporter(data, gate, write_timeout_s=self.settings.watch_write_timeout_s)
        eraser = Eraser(data, gate, self.committer, self._erasing)
        return (
            self._authorization_servicer(),
            DirectoryServicer(
                directory=store.directory,
                active=self.active,
                gate=gate,
                clock=self.clock,
                turns=turns,
                writer=self.writer,
                rights=rights,
            ),
            self._policy_servicer(),
            WatchServicer(self.watches),
            PrivacyServicer(
                data=data,
                exporter=exporter,
                eraser=eraser,
                retention=store.retention,
                committer=self.committer,
                gate=gate,
                recipients=store.recipients,
                rights=rights,
            ),
            AuditServicer(
                trail=store.audit,
                decisions=store.decisions,
                active=self.active,
                gate=gate,
                turns=turns,
                proofs=store.proofs,
                checkpoints=store.checkpoints,
                rights=rights,
                logs_to_database=TABLE in self.settings.decision_sinks,
            ),
        )

    def _authorization_servicer(self) -> AuthorizationServicer:
        past = PastQuestions(
            directory=self.store.directory,
            gate=self._gate,
            policies=self.policies,
            keys=self.keys,
            snapshot_of=temporary_snapshot,
        )
        return AuthorizationServicer(
            active=self.active,
            past=past,
            turns=self._turns,
            keys=self.keys,
            shadow=self._shadow,
            answers=Answers(),
        )

    def _policy_servicer(self) -> PolicyServicer:
        store, gate = self.store, self._gate
        previewer = Previewer(
            comparer=self._comparer,
            active=self.active,
            turns=self._turns,
            decisions=store.decisions,
            gate=gate,
            write_timeout_s=self.settings.watch_write_timeout_s,
        )
        shadow_control = ShadowControl(
            shadows=store.shadows,
            publisher=self._publisher,
            draft_editor=self._draft_editor,
            gate=gate,
            clock=self.clock,
            comparer=self._comparer,
        )
        return PolicyServicer(
            publisher=self._publisher,
            comparer=self._comparer,
            previewer=previewer,
            draft_editor=self._draft_editor,
            gate=gate,
            shadow_control=shadow_control,
            rights=self._rights,
        )

    @cached_property
    def pipeline(self) -> Pipeline:
        """The steps around every call."""
        settings, decisions = self.settings, self.decisions
        make = Pipeline if self.tracing is None else self.tracing.pipeline
        return make(
            authenticators=self.authenticators,
            decisions=None if decisions is None else DecisionRecorder(decisions, partial(self.clock.at, 0)),
            permissions=PolicyPermissions(self.active) if self.authenticators else AllowAll(),
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
            database_fault=self.database_fault,
        )

    @cached_property
    def active(self) -> ActiveChecker:
        """The checker of the active version."""
        make = ActiveChecker if self.tracing is None else self.tracing.checker
        return make(self._gate, self.policies, self.clock, inline_types=self.settings.inline_type_names)

    @cached_property
    def committer(self) -> GroupCommitter:
        """Commits writes, in a thread of its own."""
        return GroupCommitter(self.store.directory)

    @cached_property
    def watches(self) -> Watches[watch_pb2.WatchResponse]:
        """Every watch of the server."""
        return Watches(
            directory=self.store.directory,
            gate=self._gate,
            clock=self.clock,
            messages=WatchMessages(max_message_bytes=self.settings.max_message_bytes),
            turns=self._turns,
            recipients=self.store.recipients,
            write_timeout_s=self.settings.watch_write_timeout_s,
            max_watch_s=self.settings.max_watch_s,
        )

    @cached_property
    def _gate(self) -> ConsistencyGate:
        make = ConsistencyGate if self.tracing is None else self.tracing.gate
        return make(
            self.view,
            self.store.directory,
            keys=self.keys,
            pool=self.pool,
            computing_pool=self.computing_pool,
            freshness_timeout_s=self.settings.freshness_timeout_s,
            replication_timeout_s=self.settings.replication_timeout_s,
        )

    @cached_property
    def _turns(self) -> Turns:
        return Turns()

    @cached_property
    def writer(self) -> DirectoryWriter:
        return DirectoryWriter(
            self.store.directory,
            self._gate,
            self.committer,
            idle_timeout_s=self.settings.import_idle_timeout_s,
            max_import_s=self.settings.max_import_s,
        )

    @cached_property
    def _publisher(self) -> Publisher:
        return Publisher(
            directory=self.store.directory,
            gate=self._gate,
            writer=self.writer,
            policies=self.policies,
            clock=self.clock,
            warnings=PolicyWarnings(self._gate, self.active, self.policies, self._turns),
            snapshot_of=temporary_snapshot,
        )

    @cached_property
    def _comparer(self) -> Comparer:
        return Comparer(self._publisher, self._gate)

    @cached_property
    def _rights(self) -> PersonRights:
        return PersonRights(
            active=self.active,
            publisher=self._publisher,
            comparer=self._comparer,
            gate=self._gate,
            turns=self._turns,
        )

    @cached_property
    def _draft_editor(self) -> DraftEditor:
        return DraftEditor(self.store.drafts, self._publisher, self._gate, self.clock)

    @cached_property
    def _shadow(self) -> ShadowRunner:
        return ShadowRunner(self.store.shadows, self._gate, self.active, self.clock)

    @cached_property
    def _erasing(self) -> BackgroundSteps:
        data = self.store.personal_data
        steps = self._steps("erasure", data.erasure_progress, data.advance_erasure)
        steps.prepare, steps.patience = data.prepare_erasure, _PATIENCE
        return steps

    def _steps(self, name: str, progress: Callable[[], Any], advance: Callable[..., Any]) -> BackgroundSteps:
        return BackgroundSteps(name, progress, advance, self._gate, self.committer)


def open_limiter(settings: Settings) -> Limiter | None:
    """The limiter for AUTHZ_LIMITS_FILE, if it is set.

    Raises `InvalidArgumentError` for a file that cannot be used.
    """
    if not settings.limits_file:
        return None
    return Limiter(
        WatchedFile(
            settings.limits_file, parse_limits, setting="AUTHZ_LIMITS_FILE", holds="limits", keeps_last=True
        )
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
