"""The compiled policies of courses under one version of the platform's."""

from __future__ import annotations

from authz.domain.entities import PolicyActivation
from authz.domain.errors import UnusablePolicyError
from authz.domain.ports import Snapshot
from authz.policy.compile import CompiledPolicy
from authz.policy.course import compile_course_version

_MAX_KEPT = 4096
"""Courses whose policy a process keeps compiled, of some kilobytes each: those that were last asked about."""


class CoursePolicies:
    """Compiles the policy of a course when a check first needs it. For one thread.

    Kept by the course and the digest of its files, so that no entry is ever out of date.
    """

    def __init__(self, platform: CompiledPolicy) -> None:
        self._platform = platform
        self._kept: dict[tuple[str, str], CompiledPolicy] = {}

    def in_course(self, active: PolicyActivation, snapshot: Snapshot) -> CompiledPolicy:
        """The platform's policy with the one that is active in a course, as of a snapshot.

        Raises `UnusablePolicyError` if this release cannot read it.
        """
        key = active.scope.id, active.digest
        found = self._kept.pop(key, None)
        if found is None:
            version = snapshot.policy_version(active)
            if version is None or version.digest != active.digest:
                raise UnusablePolicyError(f"the replica has no files of the {active.key}")
            found = compile_course_version(self._platform, version)
        self._kept[key] = found
        if len(self._kept) > _MAX_KEPT:
            del self._kept[next(iter(self._kept))]
        return found
