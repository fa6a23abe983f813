"""Which compiled policy decides: that of the version that is active in the snapshot of a call."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import structlog

from authz.domain.consistency import Consistency
from authz.domain.context import ScopeContext
from authz.domain.entities import PolicyActivation, PolicyVersion
from authz.domain.errors import PolicyError, UnusablePolicyError
from authz.domain.files import read_files
from authz.domain.instants import Instant
from authz.domain.ports import Snapshot
from authz.domain.vocabulary import Vocabulary
from authz.engine.check import Checker
from authz.engine.clock import DecisionClock
from authz.engine.consistency import ConsistencyGate
from authz.policy.compile import CompiledPolicy
from authz.policy.invariants import Invariant, read_invariants
from authz.policy.versions import compile_version

log = structlog.get_logger()

_MAX_CACHED = 4
"""Compiled policies that a process caches: the active one, the next, and what a rollback may return to."""


class CompiledPolicies:
    """The last compiled policies, by digest. For any thread."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._cache: dict[str, CompiledPolicy | UnusablePolicyError] = {}
        """By digest; the error for a version that this release cannot read."""

    def compiled(self, version: PolicyVersion) -> CompiledPolicy:
        """The policy of a version. Compiling takes tens of milliseconds: not for the event loop.

        Raises `UnusablePolicyError` if this release cannot read it.
        """
        with self._mutex:
            found = self._cache.pop(version.digest, None)
            if found is None:
                try:
                    found = compile_version(version)
                except UnusablePolicyError as error:
                    found = error
            self._cache[version.digest] = found
            if len(self._cache) > _MAX_CACHED:
                del self._cache[next(iter(self._cache))]
        if isinstance(found, UnusablePolicyError):
            raise found.with_traceback(None)
        return found

    def invariants(self, version: PolicyVersion) -> tuple[Invariant, ...]:
        """The invariants of a version of the platform. Raises as `compiled`."""
        vocabulary = self.compiled(version).vocabulary
        try:
            return read_invariants(read_files(version.files), vocabulary)
        except PolicyError as error:
            raise UnusablePolicyError(f"{version.key} has invariants that this server cannot read") from error

    def vocabulary(self, active: PolicyActivation | None, read: Callable[[], PolicyVersion]) -> Vocabulary:
        """The vocabulary of a version, as `Vocabularies`."""
        if active is None:
            raise no_policy()
        with self._mutex:
            found = self._cache.get(active.digest)
        return (found if isinstance(found, CompiledPolicy) else self.compiled(read())).vocabulary


class _CourseChecker(Checker):
    """Decides in one course by a policy that has the rules of the course."""

    def policy_in(self, snapshot: Snapshot, scope: ScopeContext) -> CompiledPolicy:
        return self.policy


class ActiveChecker:
    """Gives each call a snapshot, the checker of the version that is active in it, and the time to decide
    at. For the event loop.

    A version is compiled once, in a thread, while the calls that need it wait. So no call is decided by a
    version that is not active in its snapshot.
    """

    def __init__(
        self,
        gate: ConsistencyGate,
        policies: CompiledPolicies,
        clock: DecisionClock,
        *,
        inline_types: frozenset[str],
    ) -> None:
        self._gate = gate
        self._policies = policies
        self._clock = clock
        self._inline_types = inline_types
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="policy")
        self._checker: Checker | None = None

    async def get(
        self, consistency: Consistency, deadline: float | None
    ) -> tuple[Snapshot, Checker, Instant]:
        """As `ConsistencyGate.snapshot`, with the checker and the time. Raises `UnusablePolicyError` if this
        process cannot decide by the version that is active."""
        while True:
            snapshot = await self._gate.snapshot(consistency, deadline)
            version, checker = snapshot.policy, self._checker
            if version is None:
                raise no_policy()
            if checker is not None and checker.decides_by(version):
                return snapshot, checker, self._clock.at(snapshot.state.committed_at)
            del snapshot  # not held while the version is compiled
            await self._switch_to(version)

    def checker(self, policy: CompiledPolicy, version: PolicyVersion | None = None) -> Checker:
        """A checker of any policy, for the same questions as the active one's."""
        return Checker(policy, inline_types=self._inline_types, version=version)

    def course_checker(self, policy: CompiledPolicy) -> Checker:
        """A checker of any policy of one course, in place of the policy that is active there."""
        return _CourseChecker(policy, inline_types=self._inline_types)

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def _switch_to(self, version: PolicyVersion) -> None:
        loop = asyncio.get_running_loop()
        policy = await loop.run_in_executor(self._pool, self._policies.compiled, version)
        before = self._checker
        if before is not None and before.decides_by(version):
            return  # another call has switched
        self._checker = self.checker(policy, version)
        log.info("policy active", policy_version=self._checker.version, digest=version.digest)
        unknown = sorted(self._inline_types - set(policy.vocabulary.resource_types))
        if unknown and before is not None:  # at the start, they end it
            log.warning(
                "AUTHZ_INLINE_TYPES names types that the active policy does not declare; remove them",
                types=unknown,
            )


def no_policy() -> UnusablePolicyError:
    """The error while no version of the policy is active."""
    return UnusablePolicyError("no version of the policy is active", "run `authz migrate`")
