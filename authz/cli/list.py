"""`authz courses`, `sessions`, `memberships`, `resources`, `shares`, `accounts`: list the directory."""

from __future__ import annotations

from typing import Annotated

import typer

from authz.cli.check import Json
from authz.cli.connection import DEFAULT_ADDRESS, Address, Database, connect
from authz.cli.records import print_records
from authz.domain.entities import (
    AccountFilter,
    CourseFilter,
    Entity,
    Filter,
    MembershipFilter,
    ResourceFilter,
    SessionFilter,
    ShareFilter,
)
from authz.domain.ids import parse_resource_ref, parse_scope, parse_subject

OfSubject = Annotated[str, typer.Option("--subject", help="Only of user:<id>.")]
InScope = Annotated[str, typer.Option("--scope", help="Only in platform, course:<id> or session:<id>.")]


def _list(wanted: Filter[Entity], address: str, database: str, as_json: bool) -> None:
    with connect(address, database) as client:
        print_records(wanted, client.read(wanted), as_json)


def courses(address: Address = DEFAULT_ADDRESS, database: Database = "", as_json: Json = False) -> None:
    """List courses."""
    _list(CourseFilter(), address, database, as_json)


def sessions(
    course: Annotated[str, typer.Option("--course", help="Only of this course.")] = "",
    address: Address = DEFAULT_ADDRESS,
    database: Database = "",
    as_json: Json = False,
) -> None:
    """List sessions."""
    _list(SessionFilter(course_id=course or None), address, database, as_json)


def memberships(
    subject: OfSubject = "",
    scope: InScope = "",
    role: Annotated[str, typer.Option(help="Only with this role.")] = "",
    address: Address = DEFAULT_ADDRESS,
    database: Database = "",
    as_json: Json = False,
) -> None:
    """List memberships."""
    wanted = MembershipFilter(
        subject=parse_subject(subject) if subject else None,
        scope=parse_scope(scope) if scope else None,
        role=role or None,
    )
    _list(wanted, address, database, as_json)


def resources(
    type_name: Annotated[str, typer.Option("--type", help="Only of this type.")] = "",
    scope: InScope = "",
    owner: Annotated[str, typer.Option(help="Only of user:<id>.")] = "",
    address: Address = DEFAULT_ADDRESS,
    database: Database = "",
    as_json: Json = False,
) -> None:
    """List resources."""
    wanted = ResourceFilter(
        type=type_name or None,
        scope=parse_scope(scope) if scope else None,
        owner=parse_subject(owner) if owner else None,
    )
    _list(wanted, address, database, as_json)


def shares(
    resource: Annotated[str, typer.Option(help="Only of <type>:<id>.")] = "",
    subject: Annotated[str, typer.Option("--subject", help="Only with user:<id>.")] = "",
    address: Address = DEFAULT_ADDRESS,
    database: Database = "",
    as_json: Json = False,
) -> None:
    """List shares."""
    wanted = ShareFilter(
        resource=parse_resource_ref(resource) if resource else None,
        subject=parse_subject(subject) if subject else None,
    )
    _list(wanted, address, database, as_json)


def accounts(
    subject: OfSubject = "",
    address: Address = DEFAULT_ADDRESS,
    database: Database = "",
    as_json: Json = False,
) -> None:
    """List accounts."""
    _list(AccountFilter(subject=parse_subject(subject) if subject else None), address, database, as_json)
