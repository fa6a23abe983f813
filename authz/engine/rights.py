"""Holds a call that is made for a person to that person's rights and rank.

A call that names no person is made as the caller, which may do everything. The rights are those of a state
with everything that was committed before the call.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import takewhile

import msgspec

from authz.domain.consistency import FULLY_CONSISTENT
from authz.domain.context import ScopeContext
from authz.domain.decisions import EDIT_POLICY, MANAGE_MEMBERS, Question
from authz.domain.effective_roles import Suspension
from authz.domain.entities import (
    AccessToken,
    AccessTokenKey,
    AccountKey,
    Membership,
    MembershipKey,
    MembershipStatus,
)
from authz.domain.errors import AuthzError, InvalidArgumentError, PermissionDeniedError, result_or_error
from authz.domain.ids import PLATFORM, ResourceRef, Scope, ScopeKind, Subject
from authz.domain.mutations import Mutation, Operation
from authz.domain.policy_changes import PolicySource
from authz.domain.ports import Snapshot
from authz.domain.trace import Trace
from authz.engine.check import Checker
from authz.engine.compare import Comparer
from authz.engine.consistency import ConsistencyGate
from authz.engine.policies import ActiveChecker
from authz.engine.publish import Publisher
from authz.engine.ranks import Ranks
from authz.engine.record_rights import RecordRights, reason_shown
from authz.engine.turns import Turns
from authz.policy.grants import excesses
from authz.policy.rules import ANY

_ON_PLATFORM, _IN_COURSES = {ScopeKind.PLATFORM}, {ScopeKind.COURSE, ScopeKind.SESSION}
_GIVING = (Operation.CREATE, Operation.TOUCH)
_MAX_NAMED = 5
"""Of what an author may not give, in an error."""


class _Authority(msgspec.Struct, frozen=True):
    """The roles that a person has in a scope, and the highest rank of those that give the permission."""

    roles: frozenset[str]
    rank: int
    ranks: Ranks


@dataclass(frozen=True, eq=False, kw_only=True)
class PersonRights:
    """Decides as `Check` does, by the policy that is active."""

    active: ActiveChecker
    publisher: Publisher
    comparer: Comparer
    gate: ConsistencyGate
    turns: Turns

    async def require_permission(self, caller: Subject | None, permission: str) -> None:
        """Raise `PermissionDeniedError` unless a caller has a permission of the API."""
        remedy = (
            "call for somebody who has it, or grant a role that permits it"
            " (`authz member add <subject> platform <role>`)"
        )
        if caller is not None:
            if await self.has_permission(caller, permission):
                return
            suspension = await self._suspension(caller)
            remedy = remedy if suspension is None else suspension.remedy(caller)
        raise PermissionDeniedError(
            f"{caller or 'an unauthenticated caller'} has no {permission} on api; {remedy}",
            permission=permission,
            scope=str(PLATFORM),
        )

    async def has_permission(self, caller: Subject, permission: str) -> bool:
        """Whether a caller has a permission of the API."""
        snapshot, checker, now = await self.active.get(FULLY_CONSISTENT, None)
        return permission in checker.permissions_of(snapshot, caller, now)

    async def _suspension(self, caller: Subject) -> Suspension | None:
        snapshot, _, now = await self.active.get(FULLY_CONSISTENT, None)
        found = snapshot.suspension(caller)
        return found if found and found.is_effective(now) else None

    async def require_policy_edit(self, person: Subject | None, scope: Scope) -> None:
        """Raise `PermissionDeniedError` unless the person may edit the policy of a scope."""
        if person is not None:
            await self._authority(person, EDIT_POLICY, scope)

    async def require_publication(
        self, person: Subject | None, after: PolicySource, scope: Scope
    ) -> int | None:
        """Raise `PermissionDeniedError` unless the person may publish a policy: by `edit_policy`, and as it
        gives nothing that the person lacks, and nothing to a role of the person's rank or above.

        Returns the number of the version that this was compared with, 0 for a course without one, which must
        still be active when it is published; None if there is no person.
        """
        if person is None:
            return None
        authority = await self._authority(person, EDIT_POLICY, scope)
        number = await self.publisher.active_number(scope)
        before, changed = await self.comparer.both(PolicySource(number=number), after, scope)
        platform = None if scope == PLATFORM else await self.publisher.platform()
        given = await self.gate.compute_cancellable(
            lambda require_not_cancelled: list(
                excesses(
                    before,
                    changed,
                    roles=authority.roles,
                    rank=authority.rank,
                    platform=platform,
                    require_not_cancelled=require_not_cancelled,
                )
            )
        )
        if given:
            more = f"; and {len(given) - _MAX_NAMED} more" if len(given) > _MAX_NAMED else ""
            raise PermissionDeniedError(
                f"{person} may not publish this, because it {'; and '.join(given[:_MAX_NAMED])}{more};"
                " a person gives, and lets courses give, only what their own roles have, to roles below"
                " theirs, takes from no role above theirs, nor in a course from one of their rank, and"
                " changes no declaration of a role: leave that out, or have it published by a caller that"
                " acts for nobody",
                permission=EDIT_POLICY,
                scope=str(scope),
            )
        return number

    async def require_records(
        self, person: Subject | None, mutations: Sequence[Mutation]
    ) -> tuple[Mutation, ...]:
        """The mutations, which are refused if a record is changed meanwhile. Raises `PermissionDeniedError`
        for a record that the person may not write."""
        outcomes = []
        for position, outcome in enumerate(await self.permitted(person, mutations)):
            if isinstance(outcome, AuthzError):
                outcome.locate(f"mutations[{position}]")
                raise outcome
            outcomes.append(outcome)
        return tuple(outcomes)

    async def permitted(
        self, person: Subject | None, mutations: Sequence[Mutation | AuthzError]
    ) -> Sequence[Mutation | AuthzError]:
        """The mutations, each of a record that the person may not write replaced by the error for it."""
        if person is None:
            return mutations
        snapshot, checker, now = await self.active.get(FULLY_CONSISTENT, None)
        rights = RecordRights(snapshot, checker, now, person)
        outcomes = await self.turns.collect(_permitted(rights, each) for each in mutations)
        known: dict[Scope, _Authority | PermissionDeniedError] = {}
        for position, scope, key in await self._memberships_of(outcomes, snapshot, checker):
            if scope not in known:
                known[scope] = await self._managing(person, scope)
            outcomes[position] = _refusal(known[scope], person, outcomes[position], key) or outcomes[position]
        return outcomes

    async def _memberships_of(
        self, mutations: Sequence[Mutation | AuthzError], snapshot: Snapshot, checker: Checker
    ) -> list[tuple[int, Scope, MembershipKey]]:
        """The memberships that mutations give or take, each with the position of the mutation, and the scope
        whose manager may make that."""
        return await self.turns.collect(
            (position, each.key.scope if isinstance(each.key, MembershipKey) else PLATFORM, key)
            for position, each in enumerate(mutations)
            if isinstance(each, Mutation)
            for key in _memberships_of(each, snapshot, checker)
        )

    async def require_removal(self, person: Subject | None, subject: Subject, scope: Scope) -> None:
        """Raise `PermissionDeniedError` unless the person may remove a subject from a course with its
        sessions, or from a session. That also takes what is shared with the subject there, so the roles in
        the course of a session count, too."""
        if person is None:
            return
        authority = await self._authority(person, MANAGE_MEMBERS, scope)
        snapshot, *_ = await self.active.get(FULLY_CONSISTENT, None)
        _require_outranks(person, authority, _held(snapshot, subject, scope, _IN_COURSES))

    async def has_role_on_platform(self, subject: Subject) -> bool:
        """Whether a subject has a role on the platform, or would have without a suspension."""
        snapshot, *_ = await self.active.get(FULLY_CONSISTENT, None)
        return any(_held(snapshot, subject, PLATFORM, _ON_PLATFORM))

    async def require_rank(self, person: Subject | None, subjects: Iterable[Subject]) -> None:
        """Raise `PermissionDeniedError` unless a person may give and take every role that they have on the
        platform."""
        if person is None:
            return
        snapshot, *_ = await self.active.get(FULLY_CONSISTENT, None)
        held = [key for each in subjects for key in _held(snapshot, each, PLATFORM, _ON_PLATFORM)]
        if held:
            _require_outranks(person, await self._authority(person, EDIT_POLICY, PLATFORM), held)

    async def _managing(self, person: Subject, scope: Scope) -> _Authority | PermissionDeniedError:
        try:
            return await self._authority(person, EDIT_POLICY if scope == PLATFORM else MANAGE_MEMBERS, scope)
        except PermissionDeniedError as error:
            return error

    async def _authority(self, person: Subject, action: str, scope: Scope) -> _Authority:
        snapshot, checker, now = await self.active.get(FULLY_CONSISTENT, None)
        trace = Trace()
        if scope == PLATFORM:
            decision = checker.check_on_platform(snapshot, person, action, now, trace)
        else:
            question = Question(person, action, ResourceRef(scope.kind.value, scope.id))
            decision = checker.check(snapshot, question, now, trace)
        if not decision.allowed:
            raise PermissionDeniedError(
                f"{person} has no {action} on {scope}{reason_shown(decision)}; ask somebody who has it",
                permission=action,
                scope=str(scope),
            )
        return _authority_of(trace, Ranks(snapshot, checker))


def _permitted(rights: RecordRights, each: Mutation | AuthzError) -> Mutation | AuthzError:
    """The error for a record that is no membership, if the person may not write it; else what is given."""
    if isinstance(each, AuthzError) or isinstance(each.key, MembershipKey):
        return each
    try:
        return rights.refusal(each) or rights.noted(each)
    except InvalidArgumentError as error:
        return error


def _memberships_of(mutation: Mutation, snapshot: Snapshot, checker: Checker) -> Iterator[MembershipKey]:
    """The memberships that a mutation gives or takes: by a suspension, and by its end, all that its subject
    has there, and so by a role that a deny names; through an account or an access token, all that its subject
    has on the platform."""
    match mutation.key:
        case MembershipKey(subject=subject, scope=scope) as key:
            yield key
            if _suspends(mutation) or _is_suspended(key, snapshot) or _is_denied(key, snapshot, checker):
                kinds = _ON_PLATFORM if scope == PLATFORM else _IN_COURSES
                yield from _held(snapshot, subject, scope, kinds)
        case AccountKey() | AccessTokenKey() as key:
            for holder in _holders(key, mutation, snapshot):
                yield from _held(snapshot, holder, PLATFORM, _ON_PLATFORM)
        case _:
            pass


def _suspends(mutation: Mutation) -> bool:
    """Whether a mutation of a membership leaves it suspended, now or later."""
    if isinstance(mutation.target, Membership):
        return _is_suspension(mutation.target.status, mutation.target.suspended_until)
    values = dict(mutation.values)  # none of a deletion
    return _is_suspension(values.get("status"), values.get("suspended_until"))


def _is_suspended(key: MembershipKey, snapshot: Snapshot) -> bool:
    """Whether a membership is suspended, now or later."""
    context = snapshot.scope(key.scope)
    return context is not None and any(
        _is_suspension(each.status, each.suspended_until)
        for each in snapshot.memberships(key.subject, context)
        if each.kind is key.scope.kind and each.role == key.role
    )


def _is_denied(key: MembershipKey, snapshot: Snapshot, checker: Checker) -> bool:
    """Whether a deny names the role of a membership, and so takes what other roles give there."""
    context = snapshot.scope(key.scope)
    return context is not None and checker.policy_in(snapshot, context).denies_by_name(
        key.role, context.course_id
    )


def _is_suspension(status: object, suspended_until: object) -> bool:
    return status is MembershipStatus.SUSPENDED or suspended_until is not None


def _holders(key: AccountKey | AccessTokenKey, mutation: Mutation, snapshot: Snapshot) -> set[Subject]:
    """Whose account or access token a mutation writes; of a token, who had it and who gets it."""
    if isinstance(key, AccountKey):
        return {key.subject}
    tokens = (snapshot.access_token(key.id), mutation.target)
    holders = {each.subject for each in tokens if isinstance(each, AccessToken)}
    return holders | {value for name, value in mutation.values if name == "subject"}


def _held(
    snapshot: Snapshot, subject: Subject, scope: Scope, kinds: Container[ScopeKind]
) -> Iterator[MembershipKey]:
    """The memberships of a subject that count in a course or in its sessions, in one session, or on the
    platform, as far as they are in scopes of these kinds."""
    for context in _contexts(snapshot, subject, scope):
        for each in snapshot.memberships(subject, context):
            if each.kind in kinds:
                yield MembershipKey(subject, context.scope_of_kind(each.kind), each.role)


def _contexts(snapshot: Snapshot, subject: Subject, scope: Scope) -> Iterator[ScopeContext]:
    """Where memberships of a subject count: in a course and in its sessions, in one session, or on the
    platform."""
    found: Iterable[ScopeContext | None] = (snapshot.scope(scope),)
    if scope.kind is ScopeKind.COURSE:
        found = takewhile(
            lambda each: each is None or each.course_id == scope.id,
            snapshot.scan_contexts(subject, start=(scope.id, "")),
        )
    return (each for each in found if each is not None)


def _authority_of(trace: Trace, ranks: Ranks) -> _Authority:
    """By the trace of a decision that allows: no deny matches, and at least one role gives the permission."""
    roles = frozenset(each.gives for each in trace.memberships if each.gives)
    by = {each.rule.role for each in trace.rules if each.matches}
    policy = ranks.checker.policy
    declared = policy.vocabulary.roles
    giving = [declared[role].rank for role in roles if ANY in by or by & policy.inherited[role]]
    return _Authority(roles, max(giving), ranks)


def _require_outranks(person: Subject, authority: _Authority, keys: Iterable[MembershipKey]) -> None:
    """Raise `PermissionDeniedError` for the first of the memberships that the person may not take."""
    for key in keys:
        if refused := _outranked(person, key, authority):
            raise refused


def _refusal(
    authority: _Authority | PermissionDeniedError,
    person: Subject,
    mutation: Mutation | AuthzError,
    key: MembershipKey,
) -> AuthzError | None:
    """The error if the person may not give or take a membership, as a mutation does. No person gives a role
    that is not declared: a policy that declares it before the write could rank it above. An update gives
    none: the membership is there."""
    if isinstance(authority, AuthzError):
        return authority
    gives = isinstance(mutation, Mutation) and mutation.key == key and mutation.operation in _GIVING
    return (_undeclared(key, authority) if gives else None) or _outranked(person, key, authority)


def _undeclared(key: MembershipKey, authority: _Authority) -> AuthzError | None:
    """The error if the active version does not declare the role of a membership."""
    vocabulary = authority.ranks.checker.policy.vocabulary
    found = result_or_error(partial(vocabulary.require_role, key.role, key.scope.kind))
    return found if isinstance(found, AuthzError) else None


def _outranked(person: Subject, key: MembershipKey, authority: _Authority) -> AuthzError | None:
    """The error if the role of a membership is not below the rank of the person, or is of no version."""
    rank = authority.ranks.of(key)
    if rank is None:
        return _undeclared(key, authority)
    if rank < authority.rank:
        return None
    return PermissionDeniedError(
        f"{person} may not give or take `{key.role}` in {key.scope}: its rank {rank} is not below"
        f" {authority.rank}, that of {person} there; ask somebody of a higher rank,"
        " or a caller that acts for nobody",
        permission=MANAGE_MEMBERS,
        scope=str(key.scope),
    )
