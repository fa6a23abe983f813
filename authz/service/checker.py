"""Decides one question on one snapshot: find the resource, gather roles, compute facts, ask the rules.

The one way to an answer for Check, BatchCheck and ListActions, so that they cannot disagree.
"""

from __future__ import annotations

import msgspec

from authz.domain.decisions import CREATE_ACTION, Decision, Question, Reason, Verdict
from authz.domain.entities import Course, Resource, Session, Share
from authz.domain.errors import ErrorReason, InvalidArgumentError
from authz.domain.facts import PURPOSE_AI_RESPONSE, Circumstances, fact_edge, facts_at
from authz.domain.ids import PLATFORM, ResourceRef, Scope, ScopeKind, Subject, course_scope, session_scope
from authz.domain.instants import Instant
from authz.domain.ports import Snapshot
from authz.domain.standing import Standing, earliest_after, standing_of
from authz.policy.compile import CompiledPolicy

COURSE_TYPE = "course"
SESSION_TYPE = "session"
_STRUCTURAL_TYPES = (COURSE_TYPE, SESSION_TYPE)
_PURPOSES = ("", PURPOSE_AI_RESPONSE)


class Located(msgspec.Struct, frozen=True):
    """A resource with the course and the session that it is in."""

    resource: Resource
    course: Course | None
    session: Session | None

    @property
    def scopes(self) -> tuple[Scope, ...]:
        """Every scope whose memberships count for it."""
        scopes = [PLATFORM]
        if self.course is not None:
            scopes.append(course_scope(self.course.id))
        if self.session is not None:
            scopes.append(session_scope(self.session.id))
        return tuple(scopes)

    @property
    def policy_scope(self) -> Scope:
        """The scope whose overrides apply: its course, else its session, else the platform."""
        if self.course is not None:
            return course_scope(self.course.id)
        return PLATFORM if self.session is None else session_scope(self.session.id)


class Checker:
    """Answers questions with one policy version. Holds no state of its own and does no I/O."""

    def __init__(self, policy: CompiledPolicy, *, inline_types: frozenset[str]) -> None:
        self.policy = policy
        self._inline_types = inline_types

    def check(self, snapshot: Snapshot, question: Question, now: Instant) -> Decision:
        """The answer at `now`. Raises `InvalidArgumentError` for a malformed question."""
        self.policy.vocabulary.require_action(question.resource.type, question.action)
        _require_id(question)
        return self._answer(snapshot, question, self._locate(snapshot, question), now)

    def list_actions(self, snapshot: Snapshot, question: Question, now: Instant) -> dict[str, Decision]:
        """The answer for each action that the type knows, in the order declared.

        Without an id the only action asked about is `create`; with one, every other.
        """
        declared = self.policy.vocabulary.require_type(question.resource.type).actions
        creating = not question.resource.id
        located = self._locate(
            snapshot, msgspec.structs.replace(question, action=CREATE_ACTION if creating else "")
        )
        return {
            action: self._answer(snapshot, msgspec.structs.replace(question, action=action), located, now)
            for action in declared
            if (action == CREATE_ACTION) is creating
        }

    def _answer(
        self, snapshot: Snapshot, question: Question, located: Located | Reason, now: Instant
    ) -> Decision:
        if question.purpose not in _PURPOSES:
            return self._deny(snapshot, Reason.PURPOSE_NOT_PERMITTED)
        if isinstance(located, Reason):
            return self._deny(snapshot, located)
        memberships = snapshot.memberships(question.subject, located.scopes)
        standing = standing_of(memberships, located.course, self.policy.vocabulary.roles, now)
        if not _stands_in(located, standing):
            if located.resource.type not in _STRUCTURAL_TYPES:
                # What no role of the platform could reach, no membership of it explains.
                own = tuple(m for m in memberships if m.scope.kind is not ScopeKind.PLATFORM)
                standing = standing_of(own, located.course, self.policy.vocabulary.roles, now)
            return Decision(
                allowed=False,
                reason=Reason.MEMBERSHIP_NOT_EFFECTIVE if standing.ineffective else Reason.NOT_A_MEMBER,
                ineffective=standing.ineffective,
                scope=located.resource.scope,
                policy_version=self.policy.version,
                revision=snapshot.revision,
                valid_until=standing.edge,
            )
        return self._decide(snapshot, question, located, standing, now)

    def _decide(
        self, snapshot: Snapshot, question: Question, located: Located, standing: Standing, now: Instant
    ) -> Decision:
        resource, type_name = located.resource, question.resource.type
        share = None if type_name in _STRUCTURAL_TYPES else _share(snapshot, resource, question.subject)
        facts = facts_at(
            now,
            Circumstances(
                subject=question.subject,
                resource=resource,
                course=located.course,
                session=located.session,
                share=share,
                has_role_in_session=ScopeKind.SESSION in standing.kinds,
                has_role_in_course=ScopeKind.COURSE in standing.kinds,
                purpose=question.purpose,
            ),
        )
        scope = located.policy_scope
        verdict: Verdict = self.policy.decide(standing.roles, scope, type_name, question.action, facts)
        asked = self.policy.asked(scope, type_name, question.action)
        return Decision(
            allowed=verdict.allowed,
            reason=verdict.reason,
            rule=verdict.rule,
            unmet=verdict.unmet,
            scope=resource.scope,
            policy_version=self.policy.version,
            revision=snapshot.revision,
            valid_until=earliest_after(now, standing.edge, fact_edge(now, resource, located.course, asked)),
        )

    def _deny(self, snapshot: Snapshot, reason: Reason) -> Decision:
        return Decision(
            allowed=False, reason=reason, policy_version=self.policy.version, revision=snapshot.revision
        )

    def _locate(self, snapshot: Snapshot, question: Question) -> Located | Reason:
        """The resource with its surroundings, else the reason why there is none to speak of."""
        if question.action == CREATE_ACTION:
            return _locate_place(snapshot, question)
        ref = question.resource
        if ref.type == COURSE_TYPE:
            resource: Resource | None = Resource(type=ref.type, id=ref.id, scope=course_scope(ref.id))
        elif ref.type == SESSION_TYPE:
            resource = Resource(type=ref.type, id=ref.id, scope=session_scope(ref.id))
        else:
            resource = snapshot.resource(ref)
            if resource is None and question.inline is not None and ref.type in self._inline_types:
                # Whatever the description calls itself, it is only ever of what was asked about.
                resource = msgspec.structs.replace(question.inline, type=ref.type, id=ref.id)
        if resource is None:
            return Reason.RESOURCE_UNKNOWN
        return _surround(snapshot, resource, question)


def _locate_place(snapshot: Snapshot, question: Question) -> Located | Reason:
    """Where something is to be created, as a resource that nobody owns yet."""
    type_name = question.resource.type
    if question.stated_session_id is not None and type_name not in _STRUCTURAL_TYPES:
        scope = session_scope(question.stated_session_id)
    elif question.stated_course_id is not None and type_name != COURSE_TYPE:
        scope = course_scope(question.stated_course_id)
    elif type_name in _STRUCTURAL_TYPES:
        scope = PLATFORM
    else:
        raise InvalidArgumentError(
            ErrorReason.MISSING_FIELD,
            f"`create` of a {type_name} needs resource.course_id or resource.session_id: where to create it",
            field="resource.course_id",
        )
    return _surround(snapshot, Resource(type=type_name, id="", scope=scope), question)


def _surround(snapshot: Snapshot, resource: Resource, question: Question) -> Located | Reason:
    """Add course and session, which must be registered, and compare them with what was stated."""
    course: Course | None = None
    session: Session | None = None
    course_id = resource.scope.id if resource.scope.kind is ScopeKind.COURSE else None
    if resource.scope.kind is ScopeKind.SESSION:
        session = snapshot.session(resource.scope.id)
        if session is None:
            return Reason.RESOURCE_UNKNOWN
        course_id = session.course_id
    if course_id is not None:
        course = snapshot.course(course_id)
        if course is None:
            return Reason.RESOURCE_UNKNOWN
    if question.stated_course_id is not None and question.stated_course_id != course_id:
        return Reason.SCOPE_MISMATCH
    session_id = None if session is None else session.id
    if question.stated_session_id is not None and question.stated_session_id != session_id:
        return Reason.SCOPE_MISMATCH
    return Located(resource, course, session)


def _stands_in(located: Located, standing: Standing) -> bool:
    """Whether there is a role to speak of.

    A role of the platform alone never reaches content, whatever the rules say of it.
    """
    if located.resource.type in _STRUCTURAL_TYPES:
        return bool(standing.roles)
    return bool(standing.kinds - {ScopeKind.PLATFORM})


def _share(snapshot: Snapshot, resource: Resource, subject: Subject) -> Share | None:
    return snapshot.share(resource.key, subject) if resource.id else None


def _require_id(question: Question) -> None:
    ref: ResourceRef = question.resource
    if question.action == CREATE_ACTION:
        if ref.id:
            raise InvalidArgumentError(
                ErrorReason.MALFORMED_FIELD,
                f"`create` names no resource.id (got `{ref.id}`): only the type, and where",
                field="resource.id",
            )
    elif not ref.id:
        raise InvalidArgumentError(
            ErrorReason.MISSING_FIELD,
            f"`{question.action}` needs resource.id; only `create` goes without",
            field="resource.id",
        )
