"""Starts, reads and stops policy shadows."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import msgspec

from authz.domain.drafts import DraftKey
from authz.domain.errors import malformed, precondition_failed
from authz.domain.files import same_files
from authz.domain.ids import PLATFORM, Scope
from authz.domain.instants import US_PER_S, Instant
from authz.domain.policy_changes import PolicySource
from authz.domain.shadow import MAX_LENGTH_US, PolicyShadow, ShadowReport, ShadowState, ShadowTally
from authz.engine.clock import DecisionClock
from authz.engine.compare import Comparer
from authz.engine.consistency import ConsistencyGate
from authz.engine.drafts import DraftEditor
from authz.engine.publish import Publisher
from authz.store.shadows import Shadows

_ID_BYTES = 8
_DEFAULT_LENGTH_US = 3_600 * US_PER_S


class ShadowRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to try, a version or else a draft, and how; see `PolicyShadow`."""

    scope: Scope
    number: int
    draft_id: str
    sample_rate: float
    budget_us: int
    ends_at: Instant | None
    """When the shadow ends by itself; None for in an hour."""
    author: str


@dataclass(frozen=True, eq=False, kw_only=True)
class ShadowControl:
    """The calls about shadows. Servers find a shadow in the database, and add their counts there."""

    shadows: Shadows
    publisher: Publisher
    draft_editor: DraftEditor
    gate: ConsistencyGate
    clock: DecisionClock
    comparer: Comparer

    async def start(self, request: ShadowRequest) -> ShadowReport:
        """Start to evaluate a candidate alongside the version that is active now, in its scope.

        Raises `InvalidArgumentError` for an end in the past or too late, `NotFoundError` for a candidate that
        is not there, `PolicyError` for one with faults, and `FailedPreconditionError` for one equal to
        the active version, or if a shadow is running.
        """
        now = self.clock.at(0)
        ends_at = now + _DEFAULT_LENGTH_US if request.ends_at is None else request.ends_at
        if not now < ends_at <= now + MAX_LENGTH_US:
            raise malformed("ends_at", "is not within the next 30 days; name a time that is")
        scope, files = request.scope, await self._files(request)
        active, active_files, _ = await self.draft_editor.base(0, scope)
        if same_files(files, active_files):
            raise precondition_failed(
                f"the candidate is equal to the active version {active}, so no check would differ; edit the"
                " draft, or name another version",
                active=str(active),
            )
        await self.comparer.compiled(PolicySource(files=files), scope)
        shadow = PolicyShadow(
            id=secrets.token_hex(_ID_BYTES),
            files=files,
            against_number=active if scope == PLATFORM else await self.publisher.active_number(),
            against_course_number=0 if scope == PLATFORM else active,
            started_at=now,
            **msgspec.structs.asdict(request) | {"ends_at": ends_at},
        )
        await self.gate.run(self.shadows.start, shadow)
        return ShadowReport(shadow, ShadowState.RUNNING, ShadowTally())

    async def _files(self, request: ShadowRequest) -> str:
        if request.draft_id:
            return (await self.draft_editor.read(DraftKey(request.draft_id, request.scope))).files
        return (await self.publisher.read(request.number, request.scope)).version.files

    async def read(self, scope: Scope = PLATFORM) -> ShadowReport | None:
        """The last shadow of a scope with its results so far; None if there is none.

        Raises `FailedPreconditionError` if there is no such course.
        """
        await self.publisher.require_course(scope)
        found = await self.gate.run(self.shadows.read, scope)
        if found is None:
            return None
        shadow, tally = found
        state = ShadowState.RUNNING
        if self.clock.at(0) >= shadow.ends_at:
            state = ShadowState.ENDED
        elif not await self._is_compared(shadow):
            state = ShadowState.SUPERSEDED
        return ShadowReport(shadow, state, tally)

    async def _is_compared(self, shadow: PolicyShadow) -> bool:
        """Whether the versions that the candidate is compared with are still active."""
        if await self.publisher.active_number() != shadow.against_number:
            return False
        scope = shadow.scope
        return scope == PLATFORM or await self.publisher.active_number(scope) == shadow.against_course_number

    async def stop(self, scope: Scope = PLATFORM) -> ShadowReport:
        """End the shadow of a scope. Raises `FailedPreconditionError` if none is running, or there is no such
        course."""
        await self.publisher.require_course(scope)
        await self.gate.run(self.shadows.stop, self.clock.at(0), scope)
        found = await self.read(scope)
        assert found is not None  # noqa: S101  it was just stopped; narrows the type
        return found
