"""Starts, reads and stops policy shadows."""

from __future__ import annotations

import secrets
from functools import partial

import msgspec

from authz.domain.drafts import DraftKey
from authz.domain.errors import malformed
from authz.domain.files import read_files
from authz.domain.instants import US_PER_S, Instant
from authz.domain.shadow import MAX_LENGTH_US, PolicyShadow, ShadowReport, Shadows, ShadowState, ShadowTally
from authz.engine.clock import DecisionClock
from authz.engine.consistency import ConsistencyGate
from authz.engine.drafts import Drafting
from authz.engine.publish import Publisher
from authz.policy.load import compile_files

_ID_BYTES = 8
_DEFAULT_LENGTH_US = 3_600 * US_PER_S


class ShadowRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What to try, a version or else a draft, and how; see `PolicyShadow`."""

    number: int
    draft_id: str
    share: float
    budget_us: int
    ends_at: Instant | None
    """None: in an hour."""
    author: str


class Shadowing:
    """The calls about shadows. Servers find a shadow in the database, and add their counts there."""

    def __init__(
        self,
        shadows: Shadows,
        publisher: Publisher,
        drafting: Drafting,
        gate: ConsistencyGate,
        clock: DecisionClock,
    ) -> None:
        self._shadows = shadows
        self._publisher = publisher
        self._drafting = drafting
        self._gate = gate
        self._clock = clock

    async def start(self, request: ShadowRequest) -> ShadowReport:
        """Start to evaluate a candidate alongside the version that is active now.

        Raises `InvalidArgumentError` for an end in the past or too late, `NotFoundError` for a candidate that
        is not there, `PolicyError` for one with faults, and `FailedPreconditionError` if a shadow is running.
        """
        now = self._clock.at(0)
        ends_at = now + _DEFAULT_LENGTH_US if request.ends_at is None else request.ends_at
        if not now < ends_at <= now + MAX_LENGTH_US:
            raise malformed("ends_at", "is not within the next 30 days; name a time that is")
        if request.draft_id:
            files = (await self._drafting.read(DraftKey(request.draft_id))).files
        else:
            files = (await self._publisher.read(request.number)).version.files
        await self._gate.run(partial(compile_files, read_files(files)))
        active = await self._publisher.active()
        shadow = PolicyShadow(
            id=secrets.token_hex(_ID_BYTES),
            files=files,
            against_number=active.entity.number,
            started_at=now,
            **msgspec.structs.asdict(request) | {"ends_at": ends_at},
        )
        await self._gate.run(partial(self._shadows.start, shadow))
        return ShadowReport(shadow, ShadowState.RUNNING, ShadowTally())

    async def read(self) -> ShadowReport | None:
        """The last shadow with its results so far; None if there is none."""
        found = await self._gate.run(self._shadows.read)
        if found is None:
            return None
        shadow, tally = found
        state = ShadowState.RUNNING
        if self._clock.at(0) >= shadow.ends_at:
            state = ShadowState.ENDED
        elif (await self._publisher.active()).entity.number != shadow.against_number:
            state = ShadowState.SUPERSEDED
        return ShadowReport(shadow, state, tally)

    async def stop(self) -> ShadowReport:
        """End the shadow. Raises `FailedPreconditionError` if none is running."""
        await self._gate.run(partial(self._shadows.stop, self._clock.at(0)))
        found = await self.read()
        assert found is not None  # noqa: S101  it was just stopped; narrows the type
        return found
