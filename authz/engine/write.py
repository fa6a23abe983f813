"""The write side of every call: commit, then wait until the caller can see it on this machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import msgspec

from authz.domain.entities import MembershipKey
from authz.domain.errors import AuthzError, ErrorReason, ImportEndedError
from authz.domain.ids import Scope, ScopeKind, Subject
from authz.domain.mutations import ImportFault, Mutation, WriteRequest
from authz.domain.origin import Origin
from authz.domain.tokens import ConsistencyToken
from authz.engine.consistency import ConsistencyGate
from authz.engine.group_commit import GroupCommitter, RequirePermitted
from authz.store.directory import SqlDirectory

MAX_REPORTED_FAULTS = 1000
MAX_MUTATIONS_PER_BATCH = 250
"""Of an import, in one transaction: a revocation waits for at most one. `_batches` may add some."""


class ImportPart(msgspec.Struct, frozen=True):
    """One message of an import, in order: each mutation, or the error for which it cannot be read."""

    mutations: Sequence[Mutation | AuthzError]
    origin: Origin
    gives_roles_back: bool = True


class WriteReport(msgspec.Struct, frozen=True):
    """The state that holds a write, and whether every process of this machine answers from it."""

    state: ConsistencyToken
    replicated: bool


class ImportReport(msgspec.Struct):
    """What has become of an import so far. `faults` are the first of those that `failed` counts. `refusal` is
    the message of the first for which the caller, or its person, lacks a permission."""

    written: int = 0
    unchanged: int = 0
    failed: int = 0
    faults: list[ImportFault] = []
    refusal: str = ""

    def add(self, faults: Iterable[ImportFault]) -> None:
        """Count faults, and report the first ones."""
        for fault in faults:
            self.failed += 1
            if fault.reason == ErrorReason.PERMISSION_MISSING and not self.refusal:
                self.refusal = fault.message
            if len(self.faults) < MAX_REPORTED_FAULTS:
                self.faults.append(fault)

    def add_to(self, error: AuthzError) -> None:
        """Add to the error that ended the import what was written before."""
        counts = {"written": self.written, "unchanged": self.unchanged, "failed": self.failed}
        error.metadata |= {name: str(count) for name, count in counts.items()}
        before = ", ".join(f"{name} {count}" for name, count in counts.items())
        error.append(f"; the import ended here, and what came before stays: {before}")


@dataclass(frozen=True, eq=False)
class DirectoryWriter:
    """Writes to the source of truth through one thread; answers once this machine's replica has followed, or
    once no process answers checks until it has. Raises `UnavailableError` if the database fails before that:
    the write may be done, and repeating it tells."""

    directory: SqlDirectory
    gate: ConsistencyGate
    committer: GroupCommitter
    idle_timeout_s: float
    max_import_s: float
    _stopping: asyncio.Event = field(default_factory=asyncio.Event, init=False)
    _waits: set[asyncio.Timeout] = field(default_factory=set, init=False)

    def end_imports(self) -> None:
        """End every import, once it has written what has arrived, with `ImportEndedError`."""
        self._stopping.set()
        for wait in self._waits:
            if not wait.expired():
                wait.reschedule(0)

    async def write(
        self, request: WriteRequest, require_permitted: RequirePermitted | None = None
    ) -> WriteReport:
        """Commit all of it or none. Raises as `GroupCommitter.write`."""
        state = await self.committer.write(request, require_permitted)
        return WriteReport(state, await self.gate.wait_until_replicated(state))

    async def repeated(self, request: WriteRequest) -> WriteReport | None:
        """The answer of an earlier write that this one repeats; None if it repeats none."""
        state = await self.gate.run(self.directory.recall, request)
        if state is None:
            return None
        return WriteReport(state, await self.gate.wait_until_replicated(state))

    async def remove_member(
        self,
        subject: Subject,
        scope: Scope,
        origin: Origin,
        require_permitted: RequirePermitted | None = None,
    ) -> WriteReport:
        """Remove a subject from a course with its sessions, or from a session, in bounded revisions. Raises
        what `require_permitted` does before each."""
        part = partial(self.directory.remove_member, subject, scope, origin)
        is_all = False
        while not is_all:
            state, is_all = await self.committer.run_batch(part, require_permitted)
        return WriteReport(state, await self.gate.wait_until_replicated(state))

    async def import_parts(self, parts: AsyncIterable[ImportPart], report: ImportReport) -> WriteReport:
        """Apply what can be applied, in one transaction or a few for each part, so that memory is bounded by
        the size of a part, and count it in `report`.

        A mutation at fault is skipped and reported by its position in the whole import. Raises what
        `parts` and `SqlDirectory.import_batch` raise, and `ImportEndedError` when `parts` is silent or goes
        on for too long, or after `end_imports`; what was imported before stays, and `report` says how much
        that is.
        """
        position, state = 0, None
        async for part in self._punctual(parts):
            for mutations in _batches(part.mutations):
                batch = partial(
                    self.directory.import_batch,
                    mutations,
                    offset=position,
                    origin=part.origin,
                    gives_roles_back=part.gives_roles_back,
                )
                result = await self.committer.run_batch(batch)
                report.written += result.written
                report.unchanged += result.unchanged
                state = result.head
                report.add(result.faults)
                position += len(mutations)
        if state is None:
            state = await self.gate.run(self.directory.head)
        return WriteReport(state, await self.gate.wait_until_replicated(state))

    async def _punctual(self, parts: AsyncIterable[ImportPart]) -> AsyncIterator[ImportPart]:
        """The parts, each within its time limit. A client keeps an import in flight only while it sends."""
        left, clock = aiter(parts), asyncio.get_running_loop().time
        end_at = clock() + self.max_import_s
        is_silent = False
        while not self._stopping.is_set():
            left_s = end_at - clock()
            # Not told from the time at the end: a timer of the event loop may be a millisecond early.
            is_silent = self.idle_timeout_s < left_s
            try:
                async with asyncio.timeout(min(self.idle_timeout_s, left_s)) as wait:
                    self._waits.add(wait)
                    part = await anext(left)
            except StopAsyncIteration:
                return
            except TimeoutError:
                break
            finally:
                self._waits.discard(wait)
            yield part
        raise self._ended(is_silent=is_silent)

    def _ended(self, *, is_silent: bool) -> ImportEndedError:
        if self._stopping.is_set():
            cause = "the server is stopping"
        elif is_silent:
            cause = f"the client sent nothing for {self.idle_timeout_s:g} s"
        else:
            cause = f"the import took longer than {self.max_import_s:g} s"
        return ImportEndedError(ErrorReason.IMPORT_ENDED, f"{cause}; import the rest again")


def _batches(mutations: Sequence[Mutation | AuthzError]) -> Iterator[Sequence[Mutation | AuthzError]]:
    """The mutations of one message in order, in batches of `MAX_MUTATIONS_PER_BATCH`, or a few more: those
    that keep the memberships of a subject in a course together.

    A batch between them would end the shares of somebody who only changes roles.
    """
    keys = [each.key if isinstance(each, Mutation) else None for each in mutations]
    memberships = {place: key for place, key in enumerate(keys) if isinstance(key, MembershipKey)}
    # The course of a session is not known here, so its members' memberships anywhere stay together.
    in_sessions = {key.subject for key in memberships.values() if key.scope.kind is ScopeKind.SESSION}
    together = {
        place: (key.subject, None if key.subject in in_sessions else key.scope)
        for place, key in memberships.items()
    }
    last = {member: place for place, member in together.items()}
    start = until = 0
    for place in range(len(mutations)):
        if place in together:
            until = max(until, last[together[place]])
        if place >= until and place - start + 1 >= MAX_MUTATIONS_PER_BATCH:
            yield mutations[start : place + 1]
            start = place + 1
    if start < len(mutations):
        yield mutations[start:]
