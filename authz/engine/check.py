"""Decides one question on one snapshot: find the resource, gather roles, compute facts, evaluate the rules.

Check, BatchCheck, ListActions and Explain all decide here, so that they cannot disagree.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Any, TypeVar

import msgspec

from authz.domain.cache import BoundedCache
from authz.domain.context import ResourceContext, ScopeContext, earliest_after, facts_at
from authz.domain.decisions import (
    COURSE_TYPE,
    CREATE_ACTION,
    STRUCTURAL_TYPES,
    Decision,
    Question,
    Reason,
    Verdict,
)
from authz.domain.effective_roles import (
    EffectiveRoles,
    InactiveReason,
    Memberships,
    MembershipTerms,
    Suspension,
    effective_roles_of,
    effective_roles_of_each,
)
from authz.domain.entities import PolicyVersion
from authz.domain.errors import ErrorReason, InvalidArgumentError, invalid
from authz.domain.facts import ALL_FACTS, ATTENDING, FOR_AI_RESPONSE, PURPOSES, SHARED, TIMED, share_facts
from authz.domain.ids import PLATFORM, ResourceRef, ScopeKind, Subject
from authz.domain.instants import Instant
from authz.domain.ports import Snapshot
from authz.domain.trace import MembershipTrace, Trace
from authz.engine.course_policies import CoursePolicies
from authz.engine.locate import locate
from authz.policy.compile import NO_RULES, CompiledPolicy, CompiledRules

T = TypeVar("T")
KeyT = TypeVar("KeyT", bound=Hashable)

_MAX_CACHED = 4096

_NOT_A_MEMBER = Verdict(False, Reason.NOT_A_MEMBER)
_NOT_EFFECTIVE = {
    why: Verdict(False, Reason.MEMBERSHIP_NOT_EFFECTIVE, inactive_reason=why) for why in InactiveReason
}
_WITHOUT_ROLES = {
    reason: Verdict(False, reason)
    for reason in (Reason.PURPOSE_NOT_PERMITTED, Reason.RESOURCE_UNKNOWN, Reason.SCOPE_MISMATCH)
}


class Access(msgspec.Struct, frozen=True, eq=False, gc=False):
    """What decides about all resources of one type in one scope, for one subject and action.

    `memberships` are those that count, and `held` the roles that they give. If no rule can allow the action
    for these roles, `refusal` is the verdict, and `rules` is empty. `next_change_at` is the earliest time at
    which passing time alone may change the roles.
    """

    memberships: Memberships
    held: EffectiveRoles
    rules: CompiledRules
    next_change_at: Instant | None
    refusal: Verdict | None = None


class Checker:
    """Answers questions with one policy version. Does no I/O."""

    def __init__(
        self,
        policy: CompiledPolicy,
        *,
        inline_types: frozenset[str] = frozenset(),
        version: PolicyVersion | None = None,
    ) -> None:
        """`version` is the one that the policy was compiled from. Every decision has its number, or
        without a version the digest of the policy."""
        self.policy = policy
        self.version = policy.version if version is None else str(version.number)
        self._number, self._digest = (0, "") if version is None else (version.number, version.digest)
        self._inline_types = inline_types
        self._cache = BoundedCache[Hashable, Any](_MAX_CACHED)
        self._courses = CoursePolicies(policy)

    def decides_by(self, version: PolicyVersion) -> bool:
        """Whether this is the checker of a version."""
        return self._number == version.number and self._digest == version.digest

    def check(
        self, snapshot: Snapshot, question: Question, now: Instant, trace: Trace | None = None
    ) -> Decision:
        """The answer at `now`; fills `trace`, if given, with how it came about.

        Raises `InvalidArgumentError` for a malformed question, and `UnusablePolicyError` if this process
        cannot read the policy of the resource's course.
        """
        self.require_valid(question)
        located = self.locate(snapshot, question)
        if trace is not None:
            trace.located = located
        return self._answer(snapshot, question, located, now, trace)

    def require_valid(self, question: Question) -> None:
        """Raise `InvalidArgumentError` for a question that is malformed under this version."""
        ref, action = question.resource, question.action
        self.policy.vocabulary.require_action(ref.type, action, refused=(CREATE_ACTION,) if ref.id else ())
        if (action == CREATE_ACTION) is bool(ref.id):
            raise _misplaced_id(question)

    def check_on_platform(
        self, snapshot: Snapshot, subject: Subject, action: str, now: Instant, trace: Trace
    ) -> Decision:
        """Whether the subject's roles on the platform let it perform an action of courses on the platform
        itself."""
        creates = Question(subject, CREATE_ACTION, ResourceRef(COURSE_TYPE, ""))  # which is asked there, too
        question = msgspec.structs.replace(creates, action=action)
        return self._answer(snapshot, question, self.locate(snapshot, creates), now, trace)

    def permissions_of(self, snapshot: Snapshot, caller: Subject, now: Instant) -> frozenset[str]:
        """The actions of the type `api` that a caller may perform at `now`, by its roles on the platform."""
        scope = snapshot.scope(PLATFORM)
        memberships = () if scope is None else snapshot.memberships(caller, scope)
        held = effective_roles_of(memberships, None, self.policy.role_table, now, snapshot.suspension(caller))
        return self.policy.permissions_of(held.roles)

    def list_actions(self, snapshot: Snapshot, question: Question, now: Instant) -> dict[str, Decision]:
        """The answer for each action that the type knows, in the order declared.

        Without a resource id the only action in the answer is `create`; with an id, every other.
        """
        declared = self.policy.vocabulary.require_type(question.resource.type).actions
        creates = not question.resource.id
        located = self.locate(
            snapshot, msgspec.structs.replace(question, action=CREATE_ACTION if creates else "")
        )
        return {
            action: self._answer(snapshot, msgspec.structs.replace(question, action=action), located, now)
            for action in declared
            if (action == CREATE_ACTION) is creates
        }

    def _answer(
        self,
        snapshot: Snapshot,
        question: Question,
        located: ResourceContext | Reason,
        now: Instant,
        trace: Trace | None = None,
    ) -> Decision:
        decision, is_certain = self._decide(snapshot, question, located, now, trace)
        until = decision.valid_until
        # A date may pass that does not matter, such as that of one membership of two that allow.
        while until is not None and not is_certain:
            later, is_certain = self._decide(snapshot, question, located, until)
            if later.verdict != decision.verdict:
                break
            until = later.valid_until
        if until == decision.valid_until:
            return decision
        return msgspec.structs.replace(decision, valid_until=until)

    def _decide(
        self,
        snapshot: Snapshot,
        question: Question,
        located: ResourceContext | Reason,
        now: Instant,
        trace: Trace | None = None,
    ) -> tuple[Decision, bool]:
        """The answer at an instant, valid until the next date that may matter, and whether that date does: it
        ends the only role."""
        version, revision = self.version, snapshot.revision
        if not self.permits(question.purpose):
            return Decision(_WITHOUT_ROLES[Reason.PURPOSE_NOT_PERMITTED], version, revision), True
        if isinstance(located, Reason):
            return Decision(_WITHOUT_ROLES[located], version, revision), True
        own = located.scope.course_policy
        of_course = "" if own is None else str(own.number)
        access = self.access(snapshot, question, located.scope, now, trace)
        if access.refusal is not None:
            return Decision(access.refusal, version, revision, access.next_change_at, of_course), False
        verdict, changes_at = self.verdict(snapshot, question, located, access, now)
        if trace is not None:
            trace.facts, _ = self.facts(snapshot, question, located, access, now)
            trace.rules = access.rules.trace(trace.facts)
        is_certain = len(access.memberships) == 1 and changes_at == access.next_change_at
        return Decision(verdict, version, revision, changes_at, of_course), is_certain

    def policy_in(self, snapshot: Snapshot, scope: ScopeContext) -> CompiledPolicy:
        """The policy that decides in a scope: with the rules that its course has of its own."""
        own = scope.course_policy
        return self.policy if own is None else self._courses.in_course(own, snapshot)

    def access(
        self,
        snapshot: Snapshot,
        question: Question,
        scope: ScopeContext,
        now: Instant,
        trace: Trace | None = None,
    ) -> Access:
        """What decides at `now` on everything in a scope of the type that a question names; its resource may
        have no id."""
        subject = question.subject
        memberships, suspension = snapshot.memberships(subject, scope), snapshot.suspension(subject)
        if trace is not None:
            is_structural = question.resource.type in STRUCTURAL_TYPES
            self._trace_memberships(trace, scope, memberships, suspension, now, structural=is_structural)
        return self.access_by(memberships, suspension, snapshot, question, scope, now)

    def access_by(  # noqa: PLR0917  positional, because every check goes through here
        self,
        memberships: Memberships,
        suspension: Suspension | None,
        snapshot: Snapshot,
        question: Question,
        scope: ScopeContext,
        now: Instant,
    ) -> Access:
        """As `access`, for any subject with these memberships and this suspension."""
        state, table, type_name = scope.state.course_state, self.policy.role_table, question.resource.type
        held = effective_roles_of(memberships, state, table, now, suspension)
        if opens(held, type_name):
            policy = self.policy_in(snapshot, scope)
            rules = policy.rules_for(held.roles, scope.course_id, type_name, question.action)
            return Access(memberships, held, rules, held.next_change_at)
        is_structural = type_name in STRUCTURAL_TYPES
        refusal, until = self.without_roles(
            held, memberships, scope, suspension, now, structural=is_structural
        )
        return Access(memberships, held, NO_RULES, until, refusal)

    def verdict(
        self, snapshot: Snapshot, question: Question, located: ResourceContext, access: Access, now: Instant
    ) -> tuple[Verdict, Instant | None]:
        """The verdict on one resource by an access that is not refused, and when time alone may change it."""
        rules = access.rules
        facts, changes_at = self.facts(snapshot, question, located, access, now, rules.required_facts)
        if access.next_change_at is not None:
            changes_at = earliest_after(now, changes_at, access.next_change_at)
        return rules.verdict(facts), changes_at

    def without_roles(
        self,
        held: EffectiveRoles,
        memberships: Memberships,
        scope: ScopeContext,
        suspension: Suspension | None,
        now: Instant,
        *,
        structural: bool,
    ) -> tuple[Verdict, Instant | None]:
        """Why there is no role that opens the type, and until when.

        A membership on the platform is a reason only if there is none in the course or session, and never
        for content, which it does not open.
        """
        own = [membership for membership in memberships if membership.kind is not ScopeKind.PLATFORM]
        state, table = scope.state.course_state, self.policy.role_table
        held_here = effective_roles_of(own, state, table, now, suspension)
        if not structural:
            held = held_here
        why = held_here.inactive_reason or held.inactive_reason
        return (_NOT_A_MEMBER if why is None else _NOT_EFFECTIVE[why]), held.next_change_at

    def facts(  # noqa: PLR0917  positional, because every check goes through here
        self,
        snapshot: Snapshot,
        question: Question,
        located: ResourceContext,
        access: Access,
        now: Instant,
        required: int = ALL_FACTS,
    ) -> tuple[int, Instant | None]:
        """The facts that hold, complete for those of `required`, and when time alone changes one of these."""
        facts, changes_at = facts_at(now, located, required) if required & TIMED else (located.facts, None)
        if required & SHARED and located.is_shared:
            facts |= share_facts(snapshot.share(question.resource, question.subject))
        held = access.held
        if required & ATTENDING and located.scope.is_attended(
            in_course=held.in_course, in_session=held.in_session
        ):
            facts |= ATTENDING
        if question.purpose:
            facts |= FOR_AI_RESPONSE
        return facts, changes_at

    def cached(self, key: KeyT, compute: Callable[[KeyT], T]) -> T:
        """The result of `compute(key)`, cached. It may depend only on the key and on this policy version."""
        found: T | None = self._cache.get(key)
        if found is None:
            found = self._cache[key] = compute(key)
        return found

    @staticmethod
    def permits(purpose: str) -> bool:
        """Whether anything may be allowed for a purpose."""
        return purpose in PURPOSES

    def given_by(
        self, access: Access, scope: ScopeContext, now: Instant
    ) -> Iterator[tuple[MembershipTerms, frozenset[str]]]:
        """Each membership of an access that is not refused, with the role that it gives now, if any."""
        state, table = scope.state.course_state, self.policy.role_table
        for membership, given in effective_roles_of_each(access.memberships, state, table, now, None):
            yield membership, given.roles

    def _trace_memberships(
        self,
        trace: Trace,
        scope: ScopeContext,
        memberships: Memberships,
        suspension: Suspension | None,
        now: Instant,
        *,
        structural: bool,
    ) -> None:
        state, table = scope.state.course_state, self.policy.role_table
        trace.scopes = scope.scopes
        trace.memberships = tuple(
            MembershipTrace(
                scope=scope.scope_of_kind(membership.kind),
                terms=membership,
                gives=next(iter(given.roles), ""),
                inactive_reason=given.inactive_reason,
                counts=structural or membership.kind is not ScopeKind.PLATFORM,
            )
            for membership, given in effective_roles_of_each(memberships, state, table, now, suspension)
        )

    def locate(self, snapshot: Snapshot, question: Question) -> ResourceContext | Reason:
        """The resource in its scope, else the reason why the question has none."""
        return locate(snapshot, question, self.policy.vocabulary, self._inline_types)


def opens(held: EffectiveRoles, type_name: str) -> bool:
    """Whether rules are consulted for who holds these roles.

    A role of the platform alone never opens content, whatever the rules say.
    """
    return held.in_course or held.in_session or (type_name in STRUCTURAL_TYPES and bool(held.roles))


def _misplaced_id(question: Question) -> InvalidArgumentError:
    ref = question.resource
    if ref.id:
        text = f"`create` takes no resource.id (got `{ref.id}`); name only the type, and where to create it"
        return invalid("resource.id", text)
    text = f"`{question.action}` needs resource.id, as in `{ref.type}:<id>`; only `create` goes without"
    return InvalidArgumentError(ErrorReason.MISSING_FIELD, text, field="resource.id")
