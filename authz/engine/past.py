"""Questions about the past: decided by the records and the policy as they were then."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from authz.domain.decisions import COURSE_TYPE, SESSION_TYPE, Question
from authz.domain.entities import (
    AccessTokenKey,
    AccountKey,
    Course,
    CourseKey,
    Key,
    MembershipKey,
    Resource,
    RestrictionKey,
    Session,
    SessionKey,
    ShareKey,
)
from authz.domain.errors import malformed
from authz.domain.ids import ResourceRef, Scope, ScopeKind, Subject
from authz.domain.instants import Instant, format_instant
from authz.domain.mutations import ChangeScope
from authz.domain.ports import Snapshot
from authz.domain.tokens import TokenKeys
from authz.engine.check import Checker
from authz.engine.consistency import ConsistencyGate
from authz.engine.policies import CompiledPolicies
from authz.engine.policy_cases import SnapshotOf
from authz.store.directory import SqlDirectory

T = TypeVar("T")


@dataclass(frozen=True, eq=False, kw_only=True)
class PastQuestions:
    """Puts a question to the state that was current at a time. Needs the database, and reads the whole change
    log of a course: one such question at a time."""

    directory: SqlDirectory
    gate: ConsistencyGate
    policies: CompiledPolicies
    keys: TokenKeys
    snapshot_of: SnapshotOf
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)

    async def ask(
        self,
        question: Question,
        time: Instant,
        subject: Subject | None,
        present: Snapshot,
        answer: Callable[[Snapshot, Checker], T],
    ) -> tuple[T, str]:
        """What `answer` makes of the state at a time, and the token of that state.

        The state has what a question about this subject, or about every one, needs. `answer` runs in a
        thread. Raises `InvalidArgumentError` for a time before the first policy and for a described
        resource, and as `ConsistencyGate.require_answer` and `SqlDirectory.records_at`.
        """
        if question.inline is not None:
            raise malformed("resource.inline", "describes a resource as it is now; leave it out with as_of")
        record, wanted = _record_of(question), _needed(question, subject)
        likely = _scope_of(present, record)

        def answered() -> tuple[T, str]:
            past = self.directory.records_at(time, record, wanted, likely=likely, subject=subject)
            with self.snapshot_of(past.entities, revision=past.state.revision) as snapshot:
                return answer(snapshot, self._checker(snapshot, time)), self.keys.sign(past.state)

        # Those that wait for their turn would use up the concurrency limit of calls that need no database.
        await self.gate.require_answer()
        await self._turn.acquire()
        return await self.gate.run_in_turn(self._turn, answered)

    def _checker(self, snapshot: Snapshot, time: Instant) -> Checker:
        version = snapshot.policy
        if version is None:
            raise malformed(
                "as_of",
                f"is {format_instant(time)}, when no policy was active; name a time after the first in"
                " `authz policy history`",
            )
        return Checker(self.policies.compiled(version), version=version)


def _record_of(question: Question) -> CourseKey | SessionKey | ResourceRef:
    ref = question.resource
    if ref.type == COURSE_TYPE and ref.id:
        return CourseKey(ref.id)
    if ref.type == SESSION_TYPE and ref.id:
        return SessionKey(ref.id)
    if ref.id:
        return ref
    if question.stated_session_id is not None:
        return SessionKey(question.stated_session_id)
    return CourseKey(question.stated_course_id or "")


def _scope_of(present: Snapshot, key: CourseKey | SessionKey | ResourceRef) -> ChangeScope:
    """Where a record is now. Nowhere, if it is not registered any more."""
    match present.record(key):
        case Course(id=id_):
            return ChangeScope(id_)
        case Session(id=id_, course_id=course_id):
            return ChangeScope(course_id, id_)
        case Resource(scope=Scope(kind=ScopeKind.COURSE, id=id_)):
            return ChangeScope(id_)
        case Resource(scope=scope):
            return _scope_of(present, SessionKey(scope.id))
        case _:
            return ChangeScope()


def _needed(question: Question, subject: Subject | None) -> Callable[[Key], bool]:
    """Which records the answer may depend on: of one subject, or of all."""

    def is_needed(key: Key) -> bool:
        match key:
            case ResourceRef():
                return key == question.resource
            case ShareKey(resource=resource):
                return resource == question.resource and subject in (None, key.subject)
            case MembershipKey() | AccountKey() | RestrictionKey():
                return subject in (None, key.subject)
            case AccessTokenKey():
                return False
            case _:
                return True

    return is_needed
