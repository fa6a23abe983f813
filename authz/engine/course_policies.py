"""The compiled policies of courses under one version of the platform's."""

from __future__ import annotations

from authz.domain.entities import PolicyActivation
from authz.domain.errors import UnusablePolicyError
from authz.domain.ports import Snapshot
from authz.policy.compile import CompiledPolicy
from authz.policy.course import compile_course_version

_MAX_CACHED = 200_000
"""Cells (role, type, action) that the cached policies cover, and one for each policy: each up to a kilobyte.
36,000 courses with three rows of their own have 144,000."""


class CoursePolicies:
    """Compiles the policy of a course when a check first needs it. For one thread.

    The key of the cache is the digest of the files, so no entry is ever out of date. Files of one course are
    refused for another, and a policy that was compiled for another would be no override here.
    """

    def __init__(self, platform: CompiledPolicy) -> None:
        self._platform = platform
        self._cache: dict[str, CompiledPolicy] = {}
        """The compiled policies, by digest, the oldest first."""
        self._size = 0

    def in_course(self, active: PolicyActivation, snapshot: Snapshot) -> CompiledPolicy:
        """The platform's policy with the one that is active in a course, as of a snapshot.

        Raises `UnusablePolicyError` if this release cannot read it.
        """
        found = self._cache.get(active.digest)
        if found is None:
            found = self._cache[active.digest] = self._compiled(active, snapshot)
            self._size += _size(found)
            while self._size > _MAX_CACHED:
                self._size -= _size(self._cache.pop(next(iter(self._cache))))
        return found

    def _compiled(self, active: PolicyActivation, snapshot: Snapshot) -> CompiledPolicy:
        version = snapshot.policy_version(active)
        if version is None or version.digest != active.digest:
            raise UnusablePolicyError(f"the replica has no files of the {active.key}")
        return compile_course_version(self._platform, version)


def _size(policy: CompiledPolicy) -> int:
    return 1 + policy.own_cells
