"""What a person needs to write a record that is no membership: the questions that `Check` would be asked."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from authz.domain.decisions import (
    COURSE_TYPE,
    CREATE_ACTION,
    EDIT_POLICY,
    MANAGE_MEMBERS,
    REVEALING_REASONS,
    SESSION_TYPE,
    Decision,
    Question,
)
from authz.domain.entities import Course, CourseKey, CourseState, Resource, Session, SessionKey, ShareKey
from authz.domain.errors import PermissionDeniedError
from authz.domain.facts import CREATED_AHEAD_US
from authz.domain.ids import PLATFORM, ResourceRef, Scope, ScopeKind, Subject
from authz.domain.instants import Instant
from authz.domain.mutations import Mutation, Operation, Seen
from authz.domain.ports import Snapshot
from authz.domain.trace import Trace
from authz.engine.check import Checker

_UPDATE, _DELETE, _SHARE, _PUBLISH, _ARCHIVE = "update", "delete", "share", "publish", "archive"
_ACTIONS = {
    **dict.fromkeys(("visibility", "ai_allowed"), _SHARE),
    **dict.fromkeys(("published", "available_from", "available_until"), _PUBLISH),
}
"""What a person needs to change a field of a resource, in place of `update`, where the type knows the action.
An editor would otherwise open to everybody, or to AI features, what only its owner may share."""
_FIXED = ("owner", "created_at")
"""Fields of a resource that no person changes: by them rules tell whose it is, and how old."""


class _Need(msgspec.Struct, frozen=True):
    """An action that must be allowed on a resource, in a scope for `create`; or why nothing allows it."""

    action: str
    ref: ResourceRef
    where: Scope = PLATFORM
    never: str = ""

    def __str__(self) -> str:
        if self.ref.id:
            return str(self.ref)
        return f"{self.ref.type} in {self.where}" if self.action == CREATE_ACTION else str(self.where)


class RecordRights:
    """Decides at one state for one person."""

    def __init__(self, snapshot: Snapshot, checker: Checker, now: Instant, person: Subject) -> None:
        self._snapshot, self._checker, self._now, self._person = snapshot, checker, now, person

    def refusal(self, mutation: Mutation) -> PermissionDeniedError | None:
        """The error for a mutation that the person may not make. Raises `InvalidArgumentError` for a
        malformed one."""
        for need in self._needs(mutation):
            decision = None if need.never else self._decide(need)
            if decision is None or not decision.allowed:
                because = need.never if decision is None else reason_shown(decision)
                return PermissionDeniedError(
                    f"{self._person} has no {need.action} on {need}{because}; ask somebody who has it",
                    permission=need.action,
                    scope=str(need.where) if need.action == CREATE_ACTION else str(need),
                )
        return None

    def noted(self, mutation: Mutation) -> Mutation:
        """The mutation, with the record by which it was decided whether the person may make it."""
        match mutation.key:
            case ResourceRef() | CourseKey() | SessionKey() as key:
                return msgspec.structs.replace(mutation, seen=Seen(self._snapshot.record(key)))
            case _:
                return mutation

    def _decide(self, need: _Need) -> Decision:
        if need.ref.type == COURSE_TYPE and not need.ref.id:
            return self._checker.check_on_platform(
                self._snapshot, self._person, need.action, self._now, Trace()
            )
        stated = {need.where.kind: need.where.id}
        question = Question(
            self._person,
            need.action,
            need.ref,
            stated_course_id=stated.get(ScopeKind.COURSE),
            stated_session_id=stated.get(ScopeKind.SESSION),
        )
        return self._checker.check(self._snapshot, question, self._now)

    def _needs(self, mutation: Mutation) -> Iterator[_Need]:
        match mutation.key:
            case ResourceRef() as ref:
                yield from self._of_resource(ref, mutation)
            case ShareKey(resource=ref) if self._deletes_undeclared(ref, mutation):
                yield from self._to_delete_undeclared(ref)
            case ShareKey(resource=ref):
                yield _Need(_SHARE if self._declares(ref, _SHARE) else _UPDATE, ref)
            case CourseKey() as key:
                yield from self._of_course(key, mutation)
            case SessionKey() as key:
                yield from self._of_session(key, mutation)
            case _:
                yield _Need(EDIT_POLICY, ResourceRef(COURSE_TYPE, ""))

    def _of_resource(self, ref: ResourceRef, mutation: Mutation) -> Iterator[_Need]:
        before, after = self._snapshot.record(ref), mutation.target
        if self._deletes_undeclared(ref, mutation):
            yield from self._to_delete_undeclared(ref)
        elif mutation.operation is Operation.DELETE:
            yield _Need(_DELETE, ref)
        elif isinstance(before, Resource):
            yield from self._to_change(ref, before.scope, _changed(mutation, before))
        elif isinstance(after, Resource):
            yield _Need(CREATE_ACTION, ResourceRef(ref.type, ""), after.scope)
            if after.owner not in (None, self._person):
                yield _Need(CREATE_ACTION, ref, after.scope, f", because {after.owner} would own it")
            if after.created_at is not None and after.created_at > self._now + CREATED_AHEAD_US:
                # Or its author could set when it may be edited.
                yield _Need(CREATE_ACTION, ref, after.scope, ", because its `created_at` is in the future")
            if after.published and self._declares(ref, _PUBLISH):
                yield _Need(_PUBLISH, ref, never=", which is not there yet: create it, then publish it")
            if after.locked:
                yield _to_lock(after.scope)
        else:
            yield _Need(_UPDATE, ref)

    def _to_change(self, ref: ResourceRef, scope: Scope, changed: set[str]) -> Iterator[_Need]:
        declared = {
            name: action
            for name, action in _ACTIONS.items()
            if name in changed and self._declares(ref, action)
        }
        for action in sorted(set(declared.values())):
            yield _Need(action, ref)
        if "locked" in changed:
            yield _to_lock(scope)
        if not changed or changed - {"locked", *declared}:
            yield _Need(_UPDATE, ref)
        for name in changed.intersection(_FIXED):
            yield _Need(_UPDATE, ref, never=f", because no person changes the field {name}")

    def _to_delete_undeclared(self, ref: ResourceRef) -> Iterator[_Need]:
        """What deletes the course or the session that the resource is in: that would delete it, too."""
        found = self._snapshot.record(ref)
        if not isinstance(found, Resource):
            self._checker.policy.vocabulary.require_type(ref.type)
        elif found.scope.kind is ScopeKind.COURSE:
            yield _Need(_DELETE, ResourceRef(COURSE_TYPE, found.scope.id))
        else:
            key = SessionKey(found.scope.id)
            yield from self._of_session(key, Mutation(Operation.DELETE, key))

    def _deletes_undeclared(self, ref: ResourceRef, mutation: Mutation) -> bool:
        declared = self._checker.policy.vocabulary.types
        return mutation.operation is Operation.DELETE and ref.type not in declared

    def _of_course(self, key: CourseKey, mutation: Mutation) -> Iterator[_Need]:
        before, ref = self._snapshot.record(key), ResourceRef(COURSE_TYPE, key.id)
        if mutation.operation is Operation.DELETE:
            yield _Need(_DELETE, ref)
        elif isinstance(before, Course):
            changed, states = _changed(mutation, before), {_value(mutation, before, "state"), before.state}
            archives = len(states) > 1 and CourseState.ARCHIVED in states
            if archives:
                yield _Need(_ARCHIVE, ref)
            if not archives or changed - {"state"}:
                yield _Need(_UPDATE, ref)
        else:
            yield _Need(CREATE_ACTION, ResourceRef(COURSE_TYPE, ""))

    def _of_session(self, key: SessionKey, mutation: Mutation) -> Iterator[_Need]:
        before, after = self._snapshot.record(key), mutation.target
        made = after if before is None else before
        # The type knows no `delete`: who may make the sessions of a course may delete them.
        if isinstance(made, Session) and (before is None or mutation.operation is Operation.DELETE):
            where = PLATFORM if made.course_id is None else Scope(ScopeKind.COURSE, made.course_id)
            yield _Need(CREATE_ACTION, ResourceRef(SESSION_TYPE, ""), where)
        else:
            yield _Need(_UPDATE, ResourceRef(SESSION_TYPE, key.id))

    def _declares(self, ref: ResourceRef, action: str) -> bool:
        return action in self._checker.policy.vocabulary.require_type(ref.type).actions


def _to_lock(scope: Scope) -> _Need:
    """What locks, and unlocks: not `update`, to which a locked resource is closed."""
    return _Need(MANAGE_MEMBERS, ResourceRef(scope.kind.value, scope.id))


def reason_shown(decision: Decision) -> str:
    """The reason of a denial in brackets. Empty for reasons that tell whether something is registered."""
    return "" if decision.reason in REVEALING_REASONS else f" ({decision.reason})"


def _changed(mutation: Mutation, before: Course | Resource) -> set[str]:
    """The fields to which a mutation gives another value than they have."""
    values = mutation.values
    if mutation.operation is not Operation.UPDATE:
        values = tuple((name, getattr(mutation.target, name)) for name in mutation.target.__struct_fields__)
    return {name for name, value in values if getattr(before, name) != value}


def _value(mutation: Mutation, before: object, name: str) -> object:
    """What a field is after a mutation."""
    if mutation.operation is Operation.UPDATE:
        return dict(mutation.values).get(name, getattr(before, name))
    return getattr(mutation.target, name)
