"""What the Read calls ask for, from protobuf to the domain."""

from __future__ import annotations

from collections.abc import Iterable

from authz.domain.entities import CourseState, MembershipStatus, SessionState
from authz.domain.errors import ErrorReason, InvalidArgumentError
from authz.domain.ids import ResourceRef, parse_id
from authz.domain.ports import (
    CourseFilter,
    MembershipFilter,
    Page,
    ResourceFilter,
    SessionFilter,
    ShareFilter,
)
from authz.domain.validation import MAX_SOURCE_LENGTH, validate_text
from authz.v1 import directory_pb2 as pb
from authz.wire.entities import COURSE_STATES, SESSION_STATES, STATUSES, parse_type
from authz.wire.values import malformed, parse_enum, parse_optional_id, parse_scope, parse_subject

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000
_MAX_IDS = 1000


def page_of(size: int, token: str) -> Page:
    """A page; 0 means the default size."""
    if not 0 <= size <= MAX_PAGE_SIZE:
        raise malformed("page_size", f"is {size}; ask for 1 to {MAX_PAGE_SIZE}, or 0 for {DEFAULT_PAGE_SIZE}")
    return Page(size or DEFAULT_PAGE_SIZE, token)


def _ids(ids: Iterable[str]) -> tuple[str, ...]:
    wanted = tuple(parse_id(text, field="ids") for text in ids)
    if len(wanted) > _MAX_IDS:
        raise InvalidArgumentError(
            ErrorReason.TOO_MANY_ITEMS,
            f"ids has {len(wanted)} items; send at most {_MAX_IDS}",
            field="ids",
            limit=str(_MAX_IDS),
        )
    return wanted


def course_filter(m: pb.ReadCoursesRequest) -> CourseFilter:
    """Which courses."""
    states = (parse_enum(CourseState, COURSE_STATES, number, field="states") for number in m.states)
    return CourseFilter(ids=_ids(m.ids), states=tuple(states))


def session_filter(m: pb.ReadSessionsRequest) -> SessionFilter:
    """Which sessions."""
    states = (parse_enum(SessionState, SESSION_STATES, number, field="states") for number in m.states)
    return SessionFilter(
        ids=_ids(m.ids),
        course_id=parse_optional_id(m.course_id, field="course_id"),
        states=tuple(states),
    )


def membership_filter(m: pb.ReadMembershipsRequest) -> MembershipFilter:
    """Which memberships."""
    statuses = (parse_enum(MembershipStatus, STATUSES, number, field="statuses") for number in m.statuses)
    return MembershipFilter(
        subject=parse_subject(m, "subject", field="subject") if m.HasField("subject") else None,
        scope=parse_scope(m, "scope", field="scope") if m.HasField("scope") else None,
        role=parse_optional_id(m.role, field="role"),
        statuses=tuple(statuses),
        source=_source(m.source),
    )


def _source(text: str) -> str | None:
    validate_text(text, field="source", max_length=MAX_SOURCE_LENGTH)
    return text or None


def resource_filter(m: pb.ReadResourcesRequest) -> ResourceFilter:
    """Which resources."""
    if m.ids and not m.type:
        raise malformed("ids", "needs a type: an id is unique only within its type")
    return ResourceFilter(
        type=parse_type(m.type, field="type") if m.type else None,
        ids=_ids(m.ids),
        scope=parse_scope(m, "scope", field="scope") if m.HasField("scope") else None,
        owner=parse_subject(m, "owner", field="owner") if m.HasField("owner") else None,
    )


def share_filter(m: pb.ReadSharesRequest) -> ShareFilter:
    """Which shares."""
    if bool(m.resource_type) is not bool(m.resource_id):
        raise malformed("resource_type", "and resource_id go together; set both or neither")
    ref = None
    if m.resource_id:
        ref = ResourceRef(
            parse_type(m.resource_type, field="resource_type"), parse_id(m.resource_id, field="resource_id")
        )
    subject = parse_subject(m, "subject", field="subject") if m.HasField("subject") else None
    return ShareFilter(resource=ref, subject=subject)
