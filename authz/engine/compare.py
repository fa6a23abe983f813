"""Compares policies, whether or not they are stored: a version by its number, or files."""

from __future__ import annotations

from functools import partial

from authz.domain.files import read_files
from authz.domain.policy_changes import PolicyDiff, PolicySource
from authz.engine.consistency import ConsistencyGate
from authz.engine.publish import Publisher
from authz.policy.compile import CompiledPolicy
from authz.policy.diff import diff
from authz.policy.versions import compile_files, compile_version


class Comparer:
    """Compiles what is to be compared in the pool: a large policy takes seconds."""

    def __init__(self, publisher: Publisher, gate: ConsistencyGate) -> None:
        self._publisher = publisher
        self._gate = gate

    async def diff(self, before: PolicySource, after: PolicySource) -> PolicyDiff:
        """What the two decide differently. Raises as `compiled`."""
        policies = [await self.compiled(source) for source in (before, after)]
        return await self._gate.run(partial(diff, *policies))

    async def compiled(self, source: PolicySource) -> CompiledPolicy:
        """The policy of a source.

        Raises `PolicyError` for files with faults, `NotFoundError` for a number that no version has, and
        `UnusablePolicyError` for a version that this release cannot read.
        """
        if source.files:
            return await self._gate.run(partial(compile_files, read_files(source.files)))
        found = await self._publisher.read(source.number)
        return await self._gate.run(partial(compile_version, found.version))
