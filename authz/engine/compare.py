"""Compares policies, whether or not they are stored: a version by its number, or files."""

from __future__ import annotations

from authz.domain.errors import NotFoundError
from authz.domain.files import read_files
from authz.domain.ids import PLATFORM, Scope
from authz.domain.policy_changes import PolicyDiff, PolicySource
from authz.engine.consistency import ConsistencyGate
from authz.engine.publish import Publisher
from authz.policy.compile import CompiledPolicy
from authz.policy.course import load_course_policy
from authz.policy.diff import diff, diff_files
from authz.policy.load import compile_files
from authz.policy.versions import compile_version


class Comparer:
    """Compiles what is to be compared by `ConsistencyGate.compute`: a large policy takes seconds."""

    def __init__(self, publisher: Publisher, gate: ConsistencyGate) -> None:
        self._publisher = publisher
        self._gate = gate

    async def diff(self, before: PolicySource, after: PolicySource, scope: Scope = PLATFORM) -> PolicyDiff:
        """What changes: between policies of the platform, or of a course. Raises as `compiled`."""
        if scope != PLATFORM:
            return await self._gate.compute_cancellable(diff, *await self.both(before, after, scope))
        old, old_files = await self._with_files(before)
        new, new_files = await self._with_files(after)
        return await self._gate.compute_cancellable(diff_files, old, new, old_files, new_files)

    async def both(
        self, before: PolicySource, after: PolicySource, scope: Scope
    ) -> tuple[CompiledPolicy, CompiledPolicy]:
        """The two policies; of a course, each with the same one of the platform. Raises as `compiled`."""
        if scope == PLATFORM:
            return await self.compiled(before), await self.compiled(after)
        platform = await self._publisher.platform()
        one = await self.in_course(platform, before, scope)
        return one, await self.in_course(platform, after, scope)

    async def in_course(self, platform: CompiledPolicy, source: PolicySource, scope: Scope) -> CompiledPolicy:
        """The platform's policy with one of a course; alone, if that has no active one and none is named.

        Raises as `compiled`, and `FailedPreconditionError` if there is no such course.
        """
        await self._publisher.require_course(scope)
        files = source.files
        if not files:
            try:
                files = (await self._publisher.read(source.number, scope)).version.files
            except NotFoundError:
                if source.number:
                    raise
                return platform
        return await self._gate.compute(load_course_policy, platform, scope.id, read_files(files))

    async def compiled(self, source: PolicySource, scope: Scope = PLATFORM) -> CompiledPolicy:
        """The policy of a source; of a course, with the active one of the platform.

        Raises `PolicyError` for files with faults, `NotFoundError` for a number that no version has, and
        `UnusablePolicyError` for a version that this release cannot read.
        """
        if scope != PLATFORM:
            return await self.in_course(await self._publisher.platform(), source, scope)
        policy, _ = await self._with_files(source)
        return policy

    async def _with_files(self, source: PolicySource) -> tuple[CompiledPolicy, dict[str, str]]:
        """A policy of the platform, and its files."""
        if source.files:
            files = read_files(source.files)
            return await self._gate.compute(compile_files, files), files
        version = (await self._publisher.read(source.number)).version
        return await self._gate.compute(compile_version, version), read_files(version.files)
