"""Decides one question on one snapshot: find the resource, gather roles, compute facts, ask the rules.

The one way to an answer for Check, BatchCheck and ListActions, so that they cannot disagree.
"""

from __future__ import annotations

import msgspec

from authz.domain.decisions import CREATE_ACTION, Decision, Question, Reason, Verdict
from authz.domain.effective_roles import (
    EffectiveRoles,
    Grant,
    InactiveReason,
    earliest_after,
    effective_roles_of,
)
from authz.domain.entities import CourseState, Resource
from authz.domain.errors import ErrorReason, InvalidArgumentError
from authz.domain.facts import ATTENDING, FOR_AI_RESPONSE, PURPOSE_AI_RESPONSE, SHARED, share_facts
from authz.domain.ids import PLATFORM, Scope, ScopeKind, Subject, course_scope, session_scope
from authz.domain.instants import Instant
from authz.domain.ports import Snapshot
from authz.domain.resource_context import (
    SCOPE_MISSING,
    TIMED,
    ResourceContext,
    facts_at,
    next_fact_change_at,
    resource_context_of,
)
from authz.domain.scope_context import ScopeContext, attends
from authz.policy.compile import CompiledPolicy

COURSE_TYPE = "course"
SESSION_TYPE = "session"
STRUCTURAL_TYPES = (COURSE_TYPE, SESSION_TYPE)
"""What content is in, and no content itself."""
_PURPOSES = ("", PURPOSE_AI_RESPONSE)
_MAX_STANDINGS = 4096

_NOT_A_MEMBER = Verdict(False, Reason.NOT_A_MEMBER)
_NOT_EFFECTIVE = {
    why: Verdict(False, Reason.MEMBERSHIP_NOT_EFFECTIVE, inactive_reason=why) for why in InactiveReason
}
_WITHOUT_ROLES = {
    reason: Verdict(False, reason)
    for reason in (Reason.PURPOSE_NOT_PERMITTED, Reason.RESOURCE_UNKNOWN, Reason.SCOPE_MISMATCH)
}


class Checker:
    """Answers questions with one policy version. Remembers what follows from that alone; does no I/O."""

    def __init__(self, policy: CompiledPolicy, *, inline_types: frozenset[str]) -> None:
        self.policy = policy
        self._inline_types = inline_types
        self._roles = policy.vocabulary.roles
        self._actions = {name: frozenset(t.actions) for name, t in policy.vocabulary.types.items()}
        self._standings: dict[int, tuple[tuple[Grant, ...], CourseState | None, EffectiveRoles]] = {}

    def check(self, snapshot: Snapshot, question: Question, now: Instant) -> Decision:
        """The answer at `now`. Raises `InvalidArgumentError` for a malformed question."""
        ref, action = question.resource, question.action
        if action not in self._actions.get(ref.type, ()):
            self.policy.vocabulary.require_action(ref.type, action)
        if (action == CREATE_ACTION) is bool(ref.id):
            raise _misplaced_id(question)
        return self._answer(snapshot, question, self._locate(snapshot, question), now)

    def list_actions(self, snapshot: Snapshot, question: Question, now: Instant) -> dict[str, Decision]:
        """The answer for each action that the type knows, in the order declared.

        Without an id the only action asked about is `create`; with one, every other.
        """
        declared = self.policy.vocabulary.require_type(question.resource.type).actions
        creating = not question.resource.id
        item = self._locate(
            snapshot, msgspec.structs.replace(question, action=CREATE_ACTION if creating else "")
        )
        return {
            action: self._answer(snapshot, msgspec.structs.replace(question, action=action), item, now)
            for action in declared
            if (action == CREATE_ACTION) is creating
        }

    def _answer(
        self, snapshot: Snapshot, question: Question, item: ResourceContext | Reason, now: Instant
    ) -> Decision:
        version, type_name = self.policy.version, question.resource.type
        if question.purpose not in _PURPOSES:
            return Decision(_WITHOUT_ROLES[Reason.PURPOSE_NOT_PERMITTED], version, snapshot.revision)
        if isinstance(item, Reason):
            return Decision(_WITHOUT_ROLES[item], version, snapshot.revision)
        place = item.place
        grants = snapshot.grants(question.subject, place)
        course_state = place.setting.course_state
        # A view gives the same object for the same grants, mostly: the object, kept alive there, is the key.
        known = self._standings.get(id(grants))
        if known is not None and known[1] is course_state:
            standing = known[2]
        else:
            standing = self._standing(grants, course_state, now)
        # A role of the platform alone never reaches content, whatever the rules say of it.
        structural = type_name in STRUCTURAL_TYPES
        if not (standing.in_course or standing.in_session or (structural and standing.roles)):
            verdict, next_change_at = self._excuse(standing if structural else None, grants, place, now)
            return Decision(verdict, version, snapshot.revision, next_change_at)
        plan = self.policy.plan(standing.roles, place.course_id, type_name, question.action)
        required_facts = plan.required_facts
        facts, next_change_at = item.facts, None
        if required_facts & TIMED:
            facts, next_change_at = (
                facts_at(now, item, required_facts),
                next_fact_change_at(now, item, required_facts),
            )
        if required_facts & SHARED and question.resource.id and not structural:
            facts |= share_facts(snapshot.share(question.resource, question.subject))
        if required_facts & ATTENDING and attends(place, standing.in_course, standing.in_session):
            facts |= ATTENDING
        if question.purpose:
            facts |= FOR_AI_RESPONSE
        if standing.next_change_at is not None:
            next_change_at = earliest_after(now, next_change_at, standing.next_change_at)
        return Decision(plan.verdict(facts), version, snapshot.revision, next_change_at)

    def _standing(
        self, grants: tuple[Grant, ...], course_state: CourseState | None, now: Instant
    ) -> EffectiveRoles:
        """`effective_roles_of`, remembered for one grant without dates: what nearly every question meets."""
        standing = effective_roles_of(grants, course_state, self._roles, now)
        if len(grants) == 1 and grants[0].starts_at is None is grants[0].ends_at:
            if len(self._standings) >= _MAX_STANDINGS:
                self._standings.clear()
            self._standings[id(grants)] = (grants, course_state, standing)
        return standing

    def _excuse(
        self, standing: EffectiveRoles | None, grants: tuple[Grant, ...], place: ScopeContext, now: Instant
    ) -> tuple[Verdict, Instant | None]:
        """Why there is no role, and until when. What no role of the platform reaches, none explains."""
        if standing is None:
            own = [grant for grant in grants if grant.kind is not ScopeKind.PLATFORM]
            standing = effective_roles_of(own, place.setting.course_state, self._roles, now)
        why = standing.inactive_reason
        return (_NOT_A_MEMBER if why is None else _NOT_EFFECTIVE[why]), standing.next_change_at

    def _locate(self, snapshot: Snapshot, question: Question) -> ResourceContext | Reason:
        """What is asked about, in its place, else the reason why there is nothing to speak of."""
        ref = question.resource
        if question.action == CREATE_ACTION:
            item = _place_item(snapshot, _place_to_create(question))
        elif ref.type == COURSE_TYPE:
            item = _place_item(snapshot, course_scope(ref.id))
        elif ref.type == SESSION_TYPE:
            item = _place_item(snapshot, session_scope(ref.id))
        else:
            item = snapshot.item(ref, question.subject)
            if item is None and question.inline is not None and ref.type in self._inline_types:
                item = _described(snapshot, question.inline, question.subject)
        if item is None or item is SCOPE_MISSING:
            return Reason.RESOURCE_UNKNOWN
        place = item.place
        if question.stated_course_id is not None and question.stated_course_id != place.course_id:
            return Reason.SCOPE_MISMATCH
        if question.stated_session_id is not None and question.stated_session_id != place.session_id:
            return Reason.SCOPE_MISMATCH
        return item


def _place_to_create(question: Question) -> Scope:
    """Where something is to be created."""
    type_name = question.resource.type
    if question.stated_session_id is not None and type_name not in STRUCTURAL_TYPES:
        return session_scope(question.stated_session_id)
    if question.stated_course_id is not None and type_name != COURSE_TYPE:
        return course_scope(question.stated_course_id)
    if type_name in STRUCTURAL_TYPES:
        return PLATFORM
    raise InvalidArgumentError(
        ErrorReason.MISSING_FIELD,
        f"`create` of a {type_name} needs resource.course_id or resource.session_id: where to create it",
        field="resource.course_id",
    )


def _place_item(snapshot: Snapshot, scope: Scope) -> ResourceContext | None:
    """A place as what is asked about, or what nobody owns yet in it. It must be registered."""
    place = snapshot.place(scope)
    return None if place is None else ResourceContext(place, place.setting.facts)


def _described(snapshot: Snapshot, inline: Resource, subject: Subject) -> ResourceContext | None:
    """What the caller says of a resource that is not registered. Its place must be."""
    place = snapshot.place(inline.scope)
    return None if place is None else resource_context_of(inline, place, subject)


def _misplaced_id(question: Question) -> InvalidArgumentError:
    ref = question.resource
    if ref.id:
        return InvalidArgumentError(
            ErrorReason.MALFORMED_FIELD,
            f"`create` names no resource.id (got `{ref.id}`): only the type, and where",
            field="resource.id",
        )
    return InvalidArgumentError(
        ErrorReason.MISSING_FIELD,
        f"`{question.action}` needs resource.id; only `create` goes without",
        field="resource.id",
    )
