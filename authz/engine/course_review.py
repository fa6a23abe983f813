"""Looks at the policies of all courses under a policy of the platform that is to be published."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from functools import partial

from authz.domain.entities import PolicyVersion
from authz.domain.files import read_files
from authz.engine.consistency import ConsistencyGate
from authz.policy.compile import CompiledPolicy
from authz.policy.course import CourseReview
from authz.policy.invariants import Invariant
from authz.store.directory import SqlDirectory

_PAGE_SIZE = 500
_SLICE_S = 0.25
"""How long the review computes before others do, and a cancelled call ends."""


class CoursePolicyReview:
    """The review of the policies that courses activated up to `revision`."""

    def __init__(
        self,
        gate: ConsistencyGate,
        directory: SqlDirectory,
        platform: CompiledPolicy,
        invariants: Sequence[Invariant],
    ) -> None:
        self._gate = gate
        self._directory = directory
        self._review = CourseReview(platform, invariants)
        self.revision = 0

    async def advance(self) -> bool:
        """Look at those that were activated after `revision`, set it to what the database holds now, and
        return whether there were any. Raises `PolicyError` if one does not pass."""
        read = partial(self._directory.course_policies, since=self.revision, limit=_PAGE_SIZE)
        await self._gate.require_answer()
        after, count = "", 0
        while True:
            versions, read_at = await self._gate.run(read, after=after)
            if not after:
                # What later pages read may be of a later state: then it is looked at again.
                self.revision = read_at.revision
            left = iter(versions)
            while await self._gate.compute(self._add, left):
                pass
            count += len(versions)
            if len(versions) < _PAGE_SIZE:
                break
            after = versions[-1].scope.id
        self._review.require_passed()
        return count > 0

    def _add(self, versions: Iterator[PolicyVersion]) -> bool:
        """Look at the next ones for a while; return whether there may be more."""
        end_at = time.monotonic() + _SLICE_S
        for version in versions:
            self._review.add(version.scope.id, read_files(version.files))
            if time.monotonic() > end_at:
                return True
            time.sleep(0)  # lets the event loop run
        return False
