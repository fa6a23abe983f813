"""`authz courses`, `sessions`, `memberships`, `resources`, `shares`, `accounts`: list the directory."""

from __future__ import annotations

from typing import Annotated, Any

from authz.cli.command import Context, on_server
from authz.cli.known_subjects import note_unknown
from authz.cli.options import OnlyResource, OnlyRole, OnlyScope, OnlySubject, OnlyType, parsed_option
from authz.domain.entities import (
    AccountFilter,
    CourseFilter,
    Filter,
    MembershipFilter,
    ResourceFilter,
    SessionFilter,
    ShareFilter,
)
from authz.domain.ids import Scope, Subject, course_scope, parse_id, parse_subject


@on_server()
def courses(context: Context) -> None:
    """List courses."""
    context.list(CourseFilter())


@on_server()
def sessions(
    context: Context,
    course: Annotated[
        str | None, parsed_option("--course", "COURSE", parse_id, "Only of the course with this id.")
    ] = None,
) -> None:
    """List sessions."""
    _list(context, SessionFilter(course_id=course), scope=course_scope(course) if course else None)


@on_server()
def memberships(
    context: Context, subject: OnlySubject = None, scope: OnlyScope = None, role: OnlyRole = ""
) -> None:
    """List memberships."""
    _list(context, MembershipFilter(subject=subject, scope=scope, role=role or None), subject, scope)


@on_server()
def resources(
    context: Context,
    type_name: OnlyType = "",
    scope: OnlyScope = None,
    owner: Annotated[
        Subject | None, parsed_option("--owner", "SUBJECT", parse_subject, "Only of this owner, user:<id>.")
    ] = None,
) -> None:
    """List resources."""
    _list(context, ResourceFilter(type=type_name or None, scope=scope, owner=owner), owner, scope)


@on_server()
def shares(context: Context, resource: OnlyResource = None, subject: OnlySubject = None) -> None:
    """List shares."""
    _list(context, ShareFilter(resource=resource, subject=subject), subject)


@on_server()
def accounts(context: Context, subject: OnlySubject = None) -> None:
    """List accounts."""
    _list(context, AccountFilter(subject=subject), subject)


def _list(
    context: Context, wanted: Filter[Any], subject: Subject | None = None, scope: Scope | None = None
) -> None:
    if not context.list(wanted):
        note_unknown(context.client, subject, scope)
