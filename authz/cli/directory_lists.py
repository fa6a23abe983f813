"""`authz courses`, `sessions`, `memberships`, `resources`, `shares`, `accounts`: list the directory."""

from __future__ import annotations

from typing import Annotated

from authz.cli.command import Context, on_server
from authz.cli.options import OnlyResource, OnlyRole, OnlyScope, OnlySubject, OnlyType, parsed_option
from authz.domain.entities import (
    AccountFilter,
    CourseFilter,
    MembershipFilter,
    ResourceFilter,
    SessionFilter,
    ShareFilter,
)
from authz.domain.ids import Subject, parse_id, parse_subject


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
    context.list(SessionFilter(course_id=course))


@on_server()
def memberships(
    context: Context, subject: OnlySubject = None, scope: OnlyScope = None, role: OnlyRole = ""
) -> None:
    """List memberships."""
    context.list(MembershipFilter(subject=subject, scope=scope, role=role or None))


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
    context.list(ResourceFilter(type=type_name or None, scope=scope, owner=owner))


@on_server()
def shares(context: Context, resource: OnlyResource = None, subject: OnlySubject = None) -> None:
    """List shares."""
    context.list(ShareFilter(resource=resource, subject=subject))


@on_server()
def accounts(context: Context, subject: OnlySubject = None) -> None:
    """List accounts."""
    context.list(AccountFilter(subject=subject))
