"""Explains an answer: decides with a trace, tells where its facts come from, and finds the nearest grants."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from operator import attrgetter
from typing import Any

import msgspec

from authz.domain.context import ResourceContext, ScopeContext
from authz.domain.decisions import CREATE_ACTION, STRUCTURAL_TYPES, Question, Reason
from authz.domain.effective_roles import (
    InactiveReason,
    Memberships,
    MembershipTerms,
    Suspension,
    effective_roles_of_each,
    suspended_kinds,
)
from authz.domain.entities import MembershipStatus
from authz.domain.explanation import Change, ChangeKind, Explanation, message_for
from authz.domain.facts import FACTS, FACTS_BY_NAME, FOR_AI_RESPONSE, PURPOSES, SHARED
from authz.domain.ids import Scope, course_scope, session_scope
from authz.domain.instants import Instant
from authz.domain.ports import Snapshot
from authz.domain.trace import Trace
from authz.engine.check import Checker
from authz.engine.nearest import Denial, Step, nearest_grants, timeless

_MAX_STEPS = 16
"""How many later instants are decided to find when time alone allows."""
_LENGTHS = {"edit_window": "edit_window_us"}
_INPUTS = [
    [
        (name, attrgetter(_LENGTHS.get(field, field)))
        for name in dict.fromkeys(name for fact in FACTS for name in fact.computed_from)
        for head, _, field in [name.partition(".")]
        if head == record
    ]
    for record in ("resource", "course", "session")
]
"""For each record the inputs that are fields of it: the name, and the value in the record."""


def explain(checker: Checker, snapshot: Snapshot, question: Question, now: Instant) -> Explanation:
    """The answer at `now`, by the records as they are, with all that led to it.

    Raises `InvalidArgumentError` for a malformed question.
    """
    return _Explainer(checker, snapshot, question, now).explanation()


def unregistered_scopes(snapshot: Snapshot, question: Question) -> tuple[Scope, ...]:
    """The scopes that a question states, or describes its resource in, and that are not registered."""
    course_id, session_id, inline = question.stated_course_id, question.stated_session_id, question.inline
    named = (
        None if course_id is None else course_scope(course_id),
        None if session_id is None else session_scope(session_id),
        None if inline is None else inline.scope,
    )
    return tuple(each for each in dict.fromkeys(named) if each is not None and snapshot.scope(each) is None)


class _Explainer:
    """Explains one answer, which it decides with a trace."""

    def __init__(self, checker: Checker, snapshot: Snapshot, question: Question, now: Instant) -> None:
        self._checker, self._snapshot, self._question, self._now = checker, snapshot, question, now
        self._trace = Trace()
        self._decision = checker.check(snapshot, question, now, self._trace)
        suspension = snapshot.suspension(question.subject)
        is_effective = suspension is not None and suspension.is_effective(now)
        self._suspension = suspension if is_effective else None

    def explanation(self) -> Explanation:
        """The answer with all that led to it."""
        is_allowed = self._decision.allowed
        return Explanation(
            decision=self._decision,
            decided_at=self._now,
            trace=self._trace,
            message=message_for(self._question.action, self._decision.verdict),
            suspension=self._suspension,
            inputs=self._inputs(),
            nearest_grants=() if is_allowed else tuple(self._nearest()),
            allowed_from=None if is_allowed else self._allowed_from(),
        )

    def _nearest(self) -> list[tuple[Change, ...]]:
        """The nearest grants, with what must be asked differently, if anything must."""
        checker, snapshot, now, trace = self._checker, self._snapshot, self._now, self._trace
        questions = [*self._questions()]
        found = [
            stated for asked, _, stated in questions if stated and checker.check(snapshot, asked, now).allowed
        ]
        if found:  # whatever else would allow needs more
            return found
        for asked, located, stated in questions:
            if asked is self._question and trace.facts is not None:
                memberships, facts = tuple(each.terms for each in trace.memberships), trace.facts
            else:
                access = checker.access(snapshot, asked, located.scope, now)
                memberships = access.memberships
                facts, _ = checker.facts(snapshot, asked, located, access, now)
            denial = self._denial(asked, located.scope, memberships, facts)
            policy = checker.policy_in(snapshot, located.scope)
            for steps in checker.cached(denial, partial(nearest_grants, policy)):
                found.append((*stated, *(self._change(step, located, memberships) for step in steps)))
        smallest = min(map(len, found), default=0)
        return [changes for changes in found if len(changes) == smallest]

    def _denial(self, asked: Question, scope: ScopeContext, memberships: Memberships, facts: int) -> Denial:
        # A purpose is changed once.
        fixed = 0 if asked.purpose == self._question.purpose else FOR_AI_RESPONSE
        if asked.inline is not None and self._snapshot.record(asked.resource) is None:
            fixed |= SHARED  # what is only described has no shares
        own = scope.course_policy
        has_rules = own is not None or scope.course_id in self._checker.policy.overrides
        return Denial(
            type_name=asked.resource.type,
            action=asked.action,
            is_content=_is_content(asked),
            course_id=scope.course_id if has_rules else None,
            course_policy="" if own is None else own.digest,
            kinds=tuple(each.kind for each in scope.scopes),
            course_state=scope.state.course_state,
            open_to_course=scope.state.open_to_course,
            memberships=tuple(timeless(membership, self._now) for membership in memberships),
            suspensions=_suspensions_in(self._suspension, self._now),
            facts=facts,
            fixed=fixed,
        )

    def _change(self, step: Step, located: ResourceContext, memberships: Memberships) -> Change:
        """A step as a change to records, with the time at which it takes effect by itself."""
        at: Instant | None = None
        why: InactiveReason | None = None
        if step.kind is ChangeKind.ACCOUNT and self._suspension is not None:
            at = self._suspension.until
        elif step.kind is ChangeKind.MEMBERSHIP:
            state, table = located.scope.state.course_state, self._checker.policy.role_table
            each = effective_roles_of_each(memberships, state, table, self._now, self._suspension)
            membership, given = next(
                (terms, given)
                for terms, given in each
                if terms.kind is step.scope_kind and terms.role == step.roles[0]
            )
            why = given.inactive_reason
            at = _in_effect_from(membership, memberships, self._suspension, self._now)
        elif step.kind is ChangeKind.FACT and step.holds:
            fact = FACTS_BY_NAME[step.fact]
            span = None
            if fact.window is not None and located.facts & fact.bit:
                span = fact.window(located.times, located.scope.state.edit_window_us)
            at = None if span is None or span[0] is None or span[0] <= self._now else span[0]
        return Change(
            kind=step.kind,
            scope=None if step.scope_kind is None else located.scope.scope_of_kind(step.scope_kind),
            roles=step.roles,
            fact=step.fact,
            holds=step.holds,
            inactive_reason=why,
            at=at,
        )

    def _questions(self) -> Iterator[tuple[Question, ResourceContext, tuple[Change, ...]]]:
        """The question without what in itself denies, what it is about, and the changes to it; nothing where
        what it is about is not known."""
        question, located = self._question, self._trace.located
        changes: tuple[Change, ...] = ()
        if located is Reason.SCOPE_MISMATCH:
            for course_id, session_id in _statements(question):
                question = msgspec.structs.replace(
                    question, stated_course_id=course_id, stated_session_id=session_id
                )
                located = self._checker.locate(self._snapshot, question)
                if isinstance(located, ResourceContext):
                    changes = (Change(kind=ChangeKind.STATED_SCOPE, scope=located.scope.scopes[-1]),)
                    break
        if not isinstance(located, ResourceContext):
            return
        if self._checker.permits(question.purpose):
            yield question, located, changes
            return
        for purpose in PURPOSES:
            asked = msgspec.structs.replace(question, purpose=purpose)
            yield asked, located, (*changes, Change(kind=ChangeKind.PURPOSE, purpose=purpose))

    def _allowed_from(self) -> Instant | None:
        """The earliest instant at which time alone allows, if it is among the next changes."""
        decision = self._decision
        for _ in range(_MAX_STEPS):
            at = decision.valid_until
            if at is None:
                return None
            decision = self._checker.check(self._snapshot, self._question, at)
            if decision.allowed:
                return at
        return None

    def _inputs(self) -> dict[str, Any]:
        """What the facts were computed from, by name; without what is not there. Nothing if none was
        computed."""
        trace, question = self._trace, self._question
        if trace.facts is None:
            return {}
        located, ref, is_content = trace.located, question.resource, _is_content(question)
        assert isinstance(located, ResourceContext)  # noqa: S101  else there were no facts; narrows the type
        resource = self._snapshot.record(ref) or question.inline if is_content else None
        records = (resource, located.scope.course, located.scope.session)
        found: dict[str, Any] = {"request.subject": question.subject, "request.purpose": question.purpose}
        for inputs, record in zip(_INPUTS, records, strict=True):
            if record is not None:
                found |= {name: value for name, of in inputs if (value := of(record)) is not None}
        if is_content and located.is_shared:
            found["share"] = self._snapshot.share(ref, question.subject)
        given = [f"{each.gives} in {each.scope}" for each in trace.memberships if each.gives and each.counts]
        found["memberships"], found["now"] = ", ".join(given), self._now
        return found


def _suspensions_in(suspension: Suspension | None, now: Instant) -> tuple[ChangeKind, ...]:
    """What must change so that a suspension ends."""
    if suspension is None:
        return ()
    parts = (
        (ChangeKind.ACCOUNT, suspension.is_of_account(now)),
        (ChangeKind.RESTRICTION, suspension.is_restriction),
    )
    return tuple(kind for kind, is_part in parts if is_part)


def _in_effect_from(
    membership: MembershipTerms, memberships: Memberships, suspension: Suspension | None, now: Instant
) -> Instant | None:
    """When time alone makes a membership among others give its role; None if it does not."""
    shut_out = [each for each in memberships if membership.kind in suspended_kinds((each,), None, now)]
    ends = [None if e.status is MembershipStatus.SUSPENDED else e.suspended_until for e in shut_out]
    if suspension is not None:
        ends.append(None if suspension.is_restriction else suspension.until)
    if membership.status is not MembershipStatus.ACTIVE or None in ends:
        return None
    times = (membership.starts_at, *ends)
    at = max((time for time in times if time is not None and time > now), default=None)
    ends_at = membership.ends_at
    return None if at is None or (ends_at is not None and ends_at <= at) else at


def _statements(question: Question) -> list[tuple[str | None, str | None]]:
    """What a question that states what does not fit may state of the course and the session instead."""
    if question.action != CREATE_ACTION:
        return [(None, None)]
    one = [(None, question.stated_session_id), (question.stated_course_id, None)]
    if question.resource.type in STRUCTURAL_TYPES:
        return [*reversed(one), (None, None)]
    return [each for each in one if each != (None, None)]


def _is_content(question: Question) -> bool:
    return question.action != CREATE_ACTION and question.resource.type not in STRUCTURAL_TYPES
