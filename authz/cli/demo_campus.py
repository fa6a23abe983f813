"""A small example campus, and questions about it with their expected answers."""

from __future__ import annotations

from typing import Any

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
from authz.domain.ids import PLATFORM, Scope, course_scope, parse_resource_ref, parse_subject, session_scope
from authz.domain.instants import US_PER_S, Instant

DAY_US = 24 * 3600 * US_PER_S
_ALGEBRA, _POETRY, _LATIN = course_scope("algebra"), course_scope("poetry"), course_scope("latin")
_WORKSHOP = session_scope("workshop")


class ExpectedAnswer(msgspec.Struct, frozen=True):
    """A question and the reason of its expected answer."""

    subject: str
    action: str
    resource: str
    reason: str
    course_id: str = ""
    purpose: str = ""


def campus(now: Instant) -> list[Entity]:
    """Algebra and poetry share the student sami; latin is archived; the workshop has a guest."""
    ended, hello = now - DAY_US, now - 60 * US_PER_S
    return [
        Course(id="algebra", state=CourseState.ACTIVE, ai_enabled=True),
        Course(id="poetry", state=CourseState.ACTIVE),
        Course(id="latin", state=CourseState.ARCHIVED),
        Session(id="workshop", course_id="algebra", state=SessionState.LIVE, open_to_course=False),
        _member("user:nadia", "owner", _ALGEBRA),
        _member("user:sami", "student", _ALGEBRA),
        _member("user:lina", "student", _ALGEBRA),
        _member("user:ivan", "student", _ALGEBRA, starts_at=ended - 90 * DAY_US, ends_at=ended),
        _member("user:yara", "student", _ALGEBRA, status=MembershipStatus.INVITED),
        _member("user:sami", "student", _POETRY),
        _member("user:omar", "teacher", _POETRY),
        _member("user:omar", "teacher", _LATIN),
        _member("user:gita", "guest", _WORKSHOP),
        _member("user:root", "platform_admin", PLATFORM),
        _resource("notebook:sami-proof", _ALGEBRA, "user:sami", ai_allowed=True),
        _resource("notebook:sami-diary", _ALGEBRA, "user:sami"),
        _resource("notebook:sami-verse", _POETRY, "user:sami", visibility=Visibility.COURSE),
        _resource("material:chapter-1", _ALGEBRA, "user:nadia", published=True),
        _resource("material:exam", _ALGEBRA, "user:nadia"),
        _resource("message:hello", _ALGEBRA, "user:sami", visibility=Visibility.COURSE, created_at=hello),
        _resource("session_note:board", _WORKSHOP, "user:nadia", visibility=Visibility.SESSION),
        _resource("material:grammar", _LATIN, "user:omar", published=True),
        _share("notebook:sami-proof", "user:lina", ShareLevel.EDITOR),
        _share("notebook:sami-proof", "user:omar", ShareLevel.VIEWER, awaits_membership=True),
    ]


def _member(subject: str, role: str, scope: Scope, **more: Any) -> Membership:
    return Membership(subject=parse_subject(subject), scope=scope, role=role, **more)


def _resource(text: str, scope: Scope, owner: str, **more: Any) -> Resource:
    ref = parse_resource_ref(text)
    return Resource(type=ref.type, id=ref.id, scope=scope, owner=parse_subject(owner), **more)


def _share(resource: str, subject: str, level: ShareLevel, **more: Any) -> Share:
    ref = parse_resource_ref(resource)
    return Share(resource=ref, subject=parse_subject(subject), level=level, **more)


QUESTIONS = [
    ExpectedAnswer("user:sami", "read", "material:chapter-1", "ROLE_GRANT"),
    ExpectedAnswer("user:sami", "read", "material:exam", "CONDITION_NOT_MET"),
    ExpectedAnswer("user:nadia", "read", "material:exam", "ROLE_GRANT"),
    ExpectedAnswer("user:omar", "read", "material:chapter-1", "NOT_A_MEMBER"),
    ExpectedAnswer("user:omar", "read", "material:chapter-1", "SCOPE_MISMATCH", course_id="poetry"),
    ExpectedAnswer("user:omar", "read", "notebook:sami-proof", "NOT_A_MEMBER"),
    ExpectedAnswer("user:omar", "read", "notebook:sami-verse", "ROLE_GRANT"),
    ExpectedAnswer("user:nadia", "read", "notebook:sami-diary", "CONDITION_NOT_MET"),
    ExpectedAnswer("user:lina", "update", "notebook:sami-proof", "ROLE_GRANT"),
    ExpectedAnswer("user:ivan", "read", "material:chapter-1", "MEMBERSHIP_NOT_EFFECTIVE"),
    ExpectedAnswer("user:yara", "read", "material:chapter-1", "MEMBERSHIP_NOT_EFFECTIVE"),
    ExpectedAnswer("user:gita", "read", "session_note:board", "ROLE_GRANT"),
    ExpectedAnswer("user:lina", "read", "session_note:board", "CONDITION_NOT_MET"),
    ExpectedAnswer("user:gita", "read", "material:chapter-1", "NOT_A_MEMBER"),
    ExpectedAnswer("user:sami", "update", "message:hello", "ROLE_GRANT"),
    ExpectedAnswer("user:nadia", "update", "message:hello", "CONDITION_NOT_MET"),
    ExpectedAnswer("user:sami", "create", "notebook", "ROLE_GRANT", course_id="algebra"),
    ExpectedAnswer("user:sami", "ai_process", "notebook:sami-proof", "ROLE_GRANT", purpose="ai_response"),
    ExpectedAnswer("user:sami", "ai_process", "notebook:sami-proof", "CONDITION_NOT_MET"),
    ExpectedAnswer(
        "user:sami", "ai_process", "notebook:sami-proof", "PURPOSE_NOT_PERMITTED", purpose="training"
    ),
    ExpectedAnswer("user:sami", "read", "notebook:sami-proof", "EXPLICIT_DENY", purpose="ai_response"),
    ExpectedAnswer("user:omar", "update", "material:grammar", "EXPLICIT_DENY"),
    ExpectedAnswer("user:omar", "read", "material:grammar", "ROLE_GRANT"),
    ExpectedAnswer("user:root", "read", "notebook:sami-diary", "NOT_A_MEMBER"),
    ExpectedAnswer("user:sami", "read", "notebook:no-such", "RESOURCE_UNKNOWN"),
]
