"""Builds the parts of the service for policies: deciding, publishing and shadows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from authz.access.authentication import Authenticator
from authz.api.grpc.policy import PolicyServicer
from authz.api.permissions import APPLY_POLICY
from authz.domain.ports import Directory
from authz.domain.tokens import TokenKeys
from authz.engine.clock import DecisionClock
from authz.engine.compare import Comparer
from authz.engine.consistency import ConsistencyGate
from authz.engine.directory_warnings import PolicyWarnings
from authz.engine.drafts import Drafting
from authz.engine.past import Past
from authz.engine.policies import ActiveChecker, CompiledPolicies
from authz.engine.preview.previewer import Previewer
from authz.engine.publish import Publisher
from authz.engine.rights import Rights
from authz.engine.scheduled import ScheduledPublisher
from authz.engine.shadowing import Shadowing
from authz.engine.turns import Turns
from authz.engine.write import DirectoryWriter
from authz.replica.temporary import temporary_snapshot
from authz.runtime.settings import Settings
from authz.store import Store

if TYPE_CHECKING:
    from authz.runtime.tracing import Tracing


def open_checker(
    settings: Settings, gate: ConsistencyGate, policies: CompiledPolicies, tracing: Tracing | None
) -> ActiveChecker:
    """The checker of the active version."""
    checker = ActiveChecker if tracing is None else tracing.checker
    return checker(
        gate,
        policies,
        inline_types=settings.inline_type_names,
    )


def open_past(
    settings: Settings,
    directory: Directory,
    gate: ConsistencyGate,
    policies: CompiledPolicies,
    keys: TokenKeys,
) -> Past:
    """The component that answers questions about the past."""
    return Past(
        directory,
        gate,
        policies,
        keys,
        temporary_snapshot,
    )


def open_publisher(  # noqa: PLR0917  parts, each of a type of its own
    directory: Directory,
    gate: ConsistencyGate,
    writer: DirectoryWriter,
    policies: CompiledPolicies,
    clock: DecisionClock,
    warnings: PolicyWarnings,
) -> Publisher:
    """What publishes versions."""
    return Publisher(
        directory, gate, writer, policies, clock, warnings=warnings, snapshot_of=temporary_snapshot
    )


def policy_servicer(  # noqa: PLR0917  parts, each of a type of its own
    settings: Settings,
    store: Store,
    publisher: Publisher,
    drafting: Drafting,
    gate: ConsistencyGate,
    active: ActiveChecker,
    turns: Turns,
    clock: DecisionClock,
    rights: Rights,
) -> PolicyServicer:
    """PolicyService."""
    comparer = Comparer(publisher, gate)
    shadowing = Shadowing(store.shadows, publisher, drafting, gate, clock, comparer=comparer)
    previewer = Previewer(
        comparer,
        active,
        turns,
        clock,
        decisions=store.decisions,
        gate=gate,
        write_timeout_s=settings.watch_write_timeout_s,
    )
    return PolicyServicer(publisher, comparer, previewer, drafting, gate, shadowing=shadowing, rights=rights)


def scheduled_publisher(  # noqa: PLR0917  parts, each of a type of its own
    store: Store,
    drafting: Drafting,
    rights: Rights,
    gate: ConsistencyGate,
    clock: DecisionClock,
    authenticators: Sequence[Authenticator],
) -> ScheduledPublisher:
    """The publisher of scheduled drafts."""
    requires_caller = bool(authenticators)
    return ScheduledPublisher(
        store.drafts, drafting, rights, gate, clock, permission=APPLY_POLICY, requires_caller=requires_caller
    )
