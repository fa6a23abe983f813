"""Compares policies, whether or not they are stored: a version by its number, or files."""

from __future__ import annotations

from functools import partial

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
    """Compiles what is to be compared in the pool: a large policy takes seconds."""

    def __init__(self, publisher: Publisher, gate: ConsistencyGate) -> None:
        self._publisher = publisher
        self._gate = gate

    async def diff(self, before: PolicySource, after: PolicySource, scope: Scope = PLATFORM) -> PolicyDiff:
        """What changes: between policies of the platform, or of a course. Raises as `compiled`."""
        if scope != PLATFORM:
            return await self._gate.run(partial(diff, *await self.both(before, after, scope)))
        before, after = await self._numbered(before), await self._numbered(after)
        policies = await self.both(before, after, scope)
        files = await self._files(before), await self._files(after)
        return await self._gate.run(partial(diff_files, *policies, *files))

    async def _numbered(self, source: PolicySource) -> PolicySource:
        """The source with the number of the version that is active now, if it names no other."""
        if source.files or source.number:
            return source
        return PolicySource(number=(await self._publisher.active()).entity.number)

    async def _files(self, source: PolicySource) -> dict[str, str]:
        return read_files(source.files or (await self._publisher.read(source.number)).version.files)

    async def both(
        self, before: PolicySource, after: PolicySource, scope: Scope
    ) -> tuple[CompiledPolicy, CompiledPolicy]:
        """The two policies; of a course, each with the active one of the platform. Raises as `compiled`."""
        if scope == PLATFORM:
            return await self.compiled(before), await self.compiled(after)
        platform = await self.compiled(PolicySource())
        one = await self.in_course(platform, before, scope)
        return one, await self.in_course(platform, after, scope)

    async def decides_alike(self, before: CompiledPolicy, after: CompiledPolicy) -> bool:
        """Whether nothing changes."""
        return not await self._gate.run(partial(diff, before, after))

    async def in_course(self, platform: CompiledPolicy, source: PolicySource, scope: Scope) -> CompiledPolicy:
        """The platform's policy with one of a course; alone, if that has no active one and none is named.

        Raises as `compiled`.
        """
        files = source.files
        if not files:
            try:
                files = (await self._publisher.read(source.number, scope)).version.files
            except NotFoundError:
                if source.number:
                    raise
                return platform
        return await self._gate.run(partial(load_course_policy, platform, scope.id, read_files(files)))

    async def compiled(self, source: PolicySource) -> CompiledPolicy:
        """The policy of a source.

        Raises `PolicyError` for files with faults, `NotFoundError` for a number that no version has, and
        `UnusablePolicyError` for a version that this release cannot read.
        """
        if source.files:
            return await self._gate.run(partial(compile_files, read_files(source.files)))
        found = await self._publisher.read(source.number)
        return await self._gate.run(partial(compile_version, found.version))
