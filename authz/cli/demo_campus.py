"""A small example campus, and questions about it with their expected answers."""

from __future__ import annotations

import msgspec

from authz.domain.entities import (
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
from authz.domain.ids import PLATFORM, ResourceRef, Scope, course_scope, parse_subject, session_scope
from authz.domain.instants import US_PER_S, Instant

DAY_US = 24 * 3600 * US_PER_S
_ALGEBRA, _POETRY, _LATIN = course_scope("algebra"), course_scope("poetry"), course_scope("latin")
_WORKSHOP = session_scope("workshop")


class ExpectedAnswer(msgspec.Struct, frozen=True):
    """A question and its expected answer."""

    subject: str
    action: str
    resource: str
    allowed: bool
    reason: str
    course_id: str = ""
    session_id: str = ""
    purpose: str = ""


def campus(now: Instant) -> list[Entity]:
    """Algebra and poetry share the student sami; latin is archived; the workshop has a guest."""
    return [
        Course(id="algebra", state=CourseState.ACTIVE, ai_enabled=True),
        Course(id="poetry", state=CourseState.ACTIVE),
        Course(id="latin", state=CourseState.ARCHIVED),
        Session(id="workshop", course_id="algebra", state=SessionState.LIVE, open_to_course=False),
        *_members(now),
        *_content(now),
        Share(
            resource=ResourceRef("notebook", "sami-proof"),
            subject=parse_subject("user:lina"),
            level=ShareLevel.EDITOR,
        ),
        Share(
            resource=ResourceRef("notebook", "sami-proof"),
            subject=parse_subject("user:omar"),
            level=ShareLevel.VIEWER,
        ),
    ]


def _member(subject: str, scope: Scope, role: str) -> Membership:
    return Membership(subject=parse_subject(subject), scope=scope, role=role)


def _members(now: Instant) -> list[Entity]:
    return [
        _member("user:nadia", _ALGEBRA, "owner"),
        _member("user:sami", _ALGEBRA, "student"),
        _member("user:lina", _ALGEBRA, "student"),
        _member("user:sami", _POETRY, "student"),
        _member("user:omar", _POETRY, "teacher"),
        _member("user:gita", _WORKSHOP, "guest"),
        _member("user:omar", _LATIN, "teacher"),
        _member("user:root", PLATFORM, "platform_admin"),
        Membership(
            subject=parse_subject("user:ivan"),
            scope=_ALGEBRA,
            role="student",
            starts_at=now - 90 * DAY_US,
            ends_at=now - DAY_US,
        ),
        Membership(
            subject=parse_subject("user:yara"),
            scope=_ALGEBRA,
            role="student",
            status=MembershipStatus.INVITED,
        ),
    ]


def _content(now: Instant) -> list[Entity]:
    sami = parse_subject("user:sami")
    nadia = parse_subject("user:nadia")
    return [
        Resource(type="notebook", id="sami-proof", scope=_ALGEBRA, owner=sami, ai_allowed=True),
        Resource(type="notebook", id="sami-diary", scope=_ALGEBRA, owner=sami),
        Resource(type="notebook", id="sami-verse", scope=_POETRY, owner=sami, visibility=Visibility.COURSE),
        Resource(type="material", id="chapter-1", scope=_ALGEBRA, owner=nadia, published=True),
        Resource(type="material", id="exam", scope=_ALGEBRA, owner=nadia),
        Resource(
            type="message",
            id="hello",
            scope=_ALGEBRA,
            owner=sami,
            visibility=Visibility.COURSE,
            created_at=now - 60 * US_PER_S,
        ),
        Resource(
            type="session_note",
            id="board",
            scope=_WORKSHOP,
            owner=nadia,
            visibility=Visibility.SESSION,
        ),
        Resource(type="material", id="grammar", scope=_LATIN, published=True),
    ]


QUESTIONS = [
    ExpectedAnswer("user:sami", "read", "material:chapter-1", True, "ROLE_GRANT"),
    ExpectedAnswer("user:sami", "read", "material:exam", False, "CONDITION_NOT_MET"),
    ExpectedAnswer("user:nadia", "read", "material:exam", True, "ROLE_GRANT"),
    ExpectedAnswer("user:omar", "read", "material:chapter-1", False, "NOT_A_MEMBER"),
    ExpectedAnswer("user:omar", "read", "material:chapter-1", False, "SCOPE_MISMATCH", course_id="poetry"),
    ExpectedAnswer("user:omar", "read", "notebook:sami-proof", False, "NOT_A_MEMBER"),
    ExpectedAnswer("user:omar", "read", "notebook:sami-verse", True, "ROLE_GRANT"),
    ExpectedAnswer("user:nadia", "read", "notebook:sami-diary", False, "CONDITION_NOT_MET"),
    ExpectedAnswer("user:lina", "update", "notebook:sami-proof", True, "ROLE_GRANT"),
    ExpectedAnswer("user:ivan", "read", "material:chapter-1", False, "MEMBERSHIP_NOT_EFFECTIVE"),
    ExpectedAnswer("user:yara", "read", "material:chapter-1", False, "MEMBERSHIP_NOT_EFFECTIVE"),
    ExpectedAnswer("user:gita", "read", "session_note:board", True, "ROLE_GRANT"),
    ExpectedAnswer("user:lina", "read", "session_note:board", False, "CONDITION_NOT_MET"),
    ExpectedAnswer("user:gita", "read", "material:chapter-1", False, "NOT_A_MEMBER"),
    ExpectedAnswer("user:sami", "update", "message:hello", True, "ROLE_GRANT"),
    ExpectedAnswer("user:nadia", "update", "message:hello", False, "CONDITION_NOT_MET"),
    ExpectedAnswer("user:sami", "create", "notebook", True, "ROLE_GRANT", course_id="algebra"),
    ExpectedAnswer(
        "user:sami", "ai_process", "notebook:sami-proof", True, "ROLE_GRANT", purpose="ai_response"
    ),
    ExpectedAnswer("user:sami", "ai_process", "notebook:sami-proof", False, "CONDITION_NOT_MET"),
    ExpectedAnswer(
        "user:sami", "ai_process", "notebook:sami-proof", False, "PURPOSE_NOT_PERMITTED", purpose="training"
    ),
    ExpectedAnswer("user:sami", "read", "notebook:sami-proof", False, "EXPLICIT_DENY", purpose="ai_response"),
    ExpectedAnswer("user:omar", "update", "material:grammar", False, "EXPLICIT_DENY"),
    ExpectedAnswer("user:omar", "read", "material:grammar", True, "ROLE_GRANT"),
    ExpectedAnswer("user:root", "read", "notebook:sami-diary", False, "NOT_A_MEMBER"),
    ExpectedAnswer("user:sami", "read", "notebook:no-such", False, "RESOURCE_UNKNOWN"),
]
