"""Looks at the policies of all courses under a policy of the platform that is to be published."""

from __future__ import annotations

import time
from collections.abc import Sequence

from authz.domain.files import read_files
from authz.domain.ports import Directory
from authz.policy.compile import CompiledPolicy
from authz.policy.course import CourseReview
from authz.policy.invariants import Invariant

_PAGE_SIZE = 500


class CoursePolicyReview:
    """The review of the policies that courses activated up to `revision`. Blocks: not for the event loop."""

    def __init__(
        self, directory: Directory, platform: CompiledPolicy, invariants: Sequence[Invariant]
    ) -> None:
        self._directory = directory
        self._review = CourseReview(platform, invariants)
        self.revision = 0

    def advance(self) -> bool:
        """Look at those that were activated after `revision`, set it to what the database holds now, and
        return whether there were any. Raises `PolicyError` if one does not pass."""
        since, after, count = self.revision, "", 0
        while True:
            versions, read_at = self._directory.course_policies(since=since, after=after, limit=_PAGE_SIZE)
            if not after:
                # What later pages read may be of a later state: then it is looked at again.
                self.revision = read_at.revision
            for version in versions:
                self._review.add(version.scope.id, read_files(version.files))
                time.sleep(0)  # lets the event loop run: the review may take seconds
            count += len(versions)
            if len(versions) < _PAGE_SIZE:
                break
            after = versions[-1].scope.id
        self._review.require_passed()
        return count > 0
