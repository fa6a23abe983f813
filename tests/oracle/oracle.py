"""Decides as docs/policies.md says, from records and the text of a policy, without code of the engine.

Slow and plain: what it says is right can be read off against the documentation.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from authz.domain.decisions import Question
from authz.domain.entities import (
    Account,
    AccountStatus,
    Course,
    CourseState,
    Entity,
    Membership,
    MembershipStatus,
    Resource,
    Session,
    SessionState,
    Share,
    ShareLevel,
    Visibility,
)
from authz.domain.ids import PLATFORM, ResourceRef, Scope, ScopeKind, Subject, course_scope, session_scope
from authz.domain.instants import Instant

_CLOCKS_DIFFER_US = 5_000_000
_DEFAULT_EDIT_WINDOW_US = 15 * 60 * 1_000_000
_PURPOSE = "ai_response"
_OVER = (CourseState.CONCLUDED, CourseState.ARCHIVED)


class Ruling(NamedTuple):
    """An answer, with its reason as in the API, and the facts that hold if rules were consulted."""

    allowed: bool
    reason: str
    facts: frozenset[str] = frozenset()


class _Role(NamedTuple):
    kind: str
    works_in_drafts: bool
    becomes: str


class _Row(NamedTuple):
    role: str
    scope: str
    type: str
    action: str
    condition: str
    effect: str

    def matches(self, facts: Iterable[str]) -> bool:
        """Whether all facts of the condition hold, and none that it negates."""
        terms = [term.strip() for term in self.condition.split("&") if term.strip()]
        return all((term[1:] not in facts) if term[0] == "!" else (term in facts) for term in terms)


class _Place(NamedTuple):
    """The course and the session that something is in, as far as it is in one."""

    course: Course | None = None
    session: Session | None = None

    @property
    def scopes(self) -> tuple[Scope, ...]:
        course = () if self.course is None else (course_scope(self.course.id),)
        return course if self.session is None else (*course, session_scope(self.session.id))


class Oracle:
    """Answers questions about some records by the rows of a policy, and by those that courses add."""

    def __init__(self, entities: Iterable[Entity], policy: Sequence[str], of_courses: Sequence[str]) -> None:
        """`policy` are the lines of the platform's policy, `of_courses` those that courses have."""
        self._records = {each.key: each for each in entities}
        self._roles: dict[str, _Role] = {}
        self._bases: dict[str, list[str]] = {}
        self._rows: list[_Row] = []
        for line in (*policy, *of_courses):
            kind, *fields = (field.strip() for field in line.split(","))
            if kind == "role":
                name, scope_kind, _rank, drafts, becomes = fields
                self._roles[name] = _Role(scope_kind, drafts == "yes", becomes)
            elif kind == "g":
                self._bases.setdefault(fields[0], []).append(fields[1])
            elif kind == "p":
                self._rows.append(_Row(*fields))

    def answer(self, question: Question, now: Instant) -> Ruling:
        """The answer to a question at a time."""
        if question.purpose not in ("", _PURPOSE):
            return Ruling(False, "PURPOSE_NOT_PERMITTED")
        ref = question.resource
        place = self._place_to_create_in(question) if question.action == "create" else self._place_of(ref)
        if place is None:
            return Ruling(False, "RESOURCE_UNKNOWN")
        stated = {question.stated_course_id and course_scope(question.stated_course_id)}
        stated |= {question.stated_session_id and session_scope(question.stated_session_id)}
        if question.action != "create" and stated - {None, *place.scopes}:
            return Ruling(False, "SCOPE_MISMATCH")
        counting = self._memberships(question.subject, place)
        roles = self._roles_given(question.subject, counting, place, now)
        is_content = ref.type not in ("course", "session")
        if not (roles.keys() - {PLATFORM} if is_content else roles):
            there = [each for each in counting if not (is_content and each.scope == PLATFORM)]
            return Ruling(False, "MEMBERSHIP_NOT_EFFECTIVE" if there else "NOT_A_MEMBER")
        facts = self._facts(question, place, roles, now)
        held = self._with_bases(role for names in roles.values() for role in names)
        return self._by_rules(
            [row for row in self._rows if self._speaks_of(row, question, place, held)], facts
        )

    @staticmethod
    def _by_rules(rows: Sequence[_Row], facts: frozenset[str]) -> Ruling:
        if any(row.effect == "deny" and row.matches(facts) for row in rows):
            return Ruling(False, "EXPLICIT_DENY", facts)
        allowing = [row for row in rows if row.effect == "allow"]
        if any(row.matches(facts) for row in allowing):
            return Ruling(True, "ROLE_GRANT", facts)
        return Ruling(False, "CONDITION_NOT_MET" if allowing else "NO_RULE", facts)

    @staticmethod
    def _speaks_of(row: _Row, question: Question, place: _Place, roles: set[str]) -> bool:
        scopes = ["*"] if place.course is None else ["*", f"course:{place.course.id}"]
        return (
            row.role in (roles | {"*"})
            and row.scope in scopes
            and row.type in ("*", question.resource.type)
            and row.action in ("*", question.action)
        )

    def _place_to_create_in(self, question: Question) -> _Place | None:
        if question.stated_session_id is not None:
            return self._place_in(session_scope(question.stated_session_id))
        if question.stated_course_id is not None:
            return self._place_in(course_scope(question.stated_course_id))
        return _Place()

    def _place_of(self, ref: ResourceRef) -> _Place | None:
        if ref.type == "course":
            return self._place_in(course_scope(ref.id))
        if ref.type == "session":
            return self._place_in(session_scope(ref.id))
        resource = self._resource(ref)
        return None if resource is None else self._place_in(resource.scope)

    def _place_in(self, scope: Scope) -> _Place | None:
        if scope.kind is ScopeKind.COURSE:
            course = self._course(scope.id)
            return None if course is None else _Place(course)
        found = [e for e in self._records.values() if isinstance(e, Session) and e.id == scope.id]
        if not found:
            return None
        (session,) = found
        return _Place(None if session.course_id is None else self._course(session.course_id), session)

    def _course(self, id_: str) -> Course | None:
        return next((e for e in self._records.values() if isinstance(e, Course) and e.id == id_), None)

    def _resource(self, ref: ResourceRef) -> Resource | None:
        return next((e for e in self._records.values() if isinstance(e, Resource) and e.key == ref), None)

    def _memberships(self, subject: Subject, place: _Place) -> list[Membership]:
        counting = (PLATFORM, *place.scopes)
        return [
            e
            for e in self._records.values()
            if isinstance(e, Membership) and e.subject == subject and e.scope in counting
        ]

    def _roles_given(
        self, subject: Subject, memberships: Sequence[Membership], place: _Place, now: Instant
    ) -> dict[Scope, set[str]]:
        """The roles of a subject by the scope of the membership."""
        if self._is_shut_out(subject, now):
            return {}
        suspended = {each.scope.kind for each in memberships if _is_suspended(each, now)}
        if suspended - {ScopeKind.PLATFORM}:
            # Suspended in the course, or in the session: no role in either.
            suspended |= {ScopeKind.COURSE, ScopeKind.SESSION}
        given: dict[Scope, set[str]] = {}
        for each in memberships:
            role = None if each.scope.kind in suspended else self._role_given(each, place, now)
            if role is not None:
                given.setdefault(each.scope, set()).add(role)
        return given

    def _is_shut_out(self, subject: Subject, now: Instant) -> bool:
        return any(
            e.status is AccountStatus.SUSPENDED and (e.suspended_until is None or now < e.suspended_until)
            for e in self._records.values()
            if isinstance(e, Account) and e.subject == subject
        )

    def _role_given(self, membership: Membership, place: _Place, now: Instant) -> str | None:
        declared = self._roles.get(membership.role)
        if declared is None or declared.kind != membership.scope.kind.value:
            return None
        role = membership.role
        if membership.status is MembershipStatus.COMPLETED:
            role = declared.becomes
        elif membership.status is not MembershipStatus.ACTIVE or not _is_now(membership, now):
            return None
        if membership.scope != PLATFORM and place.course is not None:
            if place.course.state is CourseState.DRAFT and not declared.works_in_drafts:
                return None
            if place.course.state in _OVER and role:
                role = self._roles[role].becomes or role
        return role or None

    def _with_bases(self, roles: Iterable[str]) -> set[str]:
        found, left = set[str](), list(roles)
        while left:
            role = left.pop()
            if role not in found:
                found.add(role)
                left += self._bases.get(role, [])
        return found

    def _facts(
        self, question: Question, place: _Place, roles: dict[Scope, set[str]], now: Instant
    ) -> frozenset[str]:
        course, session = place
        holds = {"for_ai_response": question.purpose == _PURPOSE}
        holds["course_archived"] = course is not None and course.state is CourseState.ARCHIVED
        if session is not None:
            by_course = course is not None and session.open_to_course and course_scope(course.id) in roles
            holds["attending"] = session_scope(session.id) in roles or by_course
            holds["session_live"] = session.state is SessionState.LIVE
            holds["session_ended"] = session.state in (SessionState.ENDED, SessionState.CANCELLED)
        resource = self._resource(question.resource) if question.action != "create" else None
        if resource is not None:
            level = self._shared(resource.key, question.subject)
            holds |= {
                "own": resource.owner == question.subject,
                "shared_view": level is not None,
                "shared_edit": level is ShareLevel.EDITOR,
                "published": resource.published and _is_available(resource, now),
                "course_visible": resource.visibility is Visibility.COURSE and course is not None,
                "session_visible": resource.visibility is Visibility.SESSION and session is not None,
                "within_edit_window": _is_new(resource, course, now),
                "locked": resource.locked,
                "ai_enabled": resource.ai_allowed and course is not None and course.ai_enabled,
            }
        return frozenset(name for name, is_so in holds.items() if is_so)

    def _shared(self, ref: ResourceRef, subject: Subject) -> ShareLevel | None:
        return next(
            (
                e.level
                for e in self._records.values()
                if isinstance(e, Share) and e.resource == ref and e.subject == subject
            ),
            None,
        )


def _is_suspended(membership: Membership, now: Instant) -> bool:
    until = membership.suspended_until
    return membership.status is MembershipStatus.SUSPENDED or (until is not None and now < until)


def _is_now(membership: Membership, now: Instant) -> bool:
    starts_at, ends_at = membership.starts_at, membership.ends_at
    return (starts_at is None or starts_at <= now) and (ends_at is None or now < ends_at)


def _is_available(resource: Resource, now: Instant) -> bool:
    since, until = resource.available_from, resource.available_until
    return (since is None or since <= now) and (until is None or now < until)


def _is_new(resource: Resource, course: Course | None, now: Instant) -> bool:
    window_us = _DEFAULT_EDIT_WINDOW_US if course is None else course.edit_window_us
    created_at = resource.created_at
    if created_at is None or created_at > now + _CLOCKS_DIFFER_US:
        return False
    return now - min(created_at, now) < window_us
