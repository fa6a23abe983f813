"""`authz courses`, `sessions`, `memberships`, `resources`, `accounts`: list the directory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import msgspec
import typer

from authz.cli.check import Json
from authz.cli.connection import DEFAULT_ADDRESS, Address, Database, connect
from authz.cli.output import print_rows
from authz.domain.entities import Versioned
from authz.domain.ids import parse_scope, parse_subject
from authz.domain.instants import format_instant

_DATES = {"starts at": "starts_at", "ends at": "ends_at"}


def _show(found: Iterator[Versioned[Any]], as_json: bool, columns: Mapping[str, str]) -> None:
    """Print records as JSON, or as a table of these fields by the names of their columns."""
    records = list(found)  # before an error, print nothing
    if as_json:
        for versioned in records:
            print(msgspec.json.encode(versioned).decode())
    else:
        rows = ([_text(getattr(each.entity, name)) for name in columns.values()] for each in records)
        print_rows(list(columns), rows)


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return format_instant(value) if isinstance(value, int) else str(value)


def courses(address: Address = DEFAULT_ADDRESS, database: Database = "", as_json: Json = False) -> None:
    """List courses."""
    with connect(address, database) as client:
        columns = {"course": "id", "state": "state", "ai enabled": "ai_enabled"}
        _show(client.read_courses(), as_json, columns)


def sessions(
    course: Annotated[str, typer.Option("--course", help="Only of this course.")] = "",
    address: Address = DEFAULT_ADDRESS,
    database: Database = "",
    as_json: Json = False,
) -> None:
    """List sessions."""
    with connect(address, database) as client:
        columns = {"session": "id", "course": "course_id", "state": "state"}
        _show(client.read_sessions(course), as_json, columns | _DATES)


def memberships(
    subject: Annotated[str, typer.Option(help="Only of user:<id>.")] = "",
    scope: Annotated[str, typer.Option(help="Only in platform, course:<id> or session:<id>.")] = "",
    role: Annotated[str, typer.Option(help="Only with this role.")] = "",
    address: Address = DEFAULT_ADDRESS,
    database: Database = "",
    as_json: Json = False,
) -> None:
    """List memberships."""
    who = parse_subject(subject) if subject else None
    where = parse_scope(scope) if scope else None
    with connect(address, database) as client:
        columns = {"subject": "subject", "scope": "scope", "role": "role", "status": "status"}
        found = client.read_memberships(subject=who, scope=where, role=role)
        _show(found, as_json, columns | _DATES)


def resources(
    type_name: Annotated[str, typer.Option("--type", help="Only of this type.")] = "",
    scope: Annotated[str, typer.Option(help="Only in course:<id> or session:<id>.")] = "",
    owner: Annotated[str, typer.Option(help="Only of user:<id>.")] = "",
    address: Address = DEFAULT_ADDRESS,
    database: Database = "",
    as_json: Json = False,
) -> None:
    """List resources."""
    where = parse_scope(scope) if scope else None
    whose = parse_subject(owner) if owner else None
    with connect(address, database) as client:
        columns = {"resource": "key", "scope": "scope", "owner": "owner", "visibility": "visibility"}
        found = client.read_resources(type_name=type_name, scope=where, owner=whose)
        _show(found, as_json, columns | {"published": "published"})


def accounts(
    subject: Annotated[str, typer.Option(help="Only of user:<id>.")] = "",
    address: Address = DEFAULT_ADDRESS,
    database: Database = "",
    as_json: Json = False,
) -> None:
    """List accounts."""
    who = parse_subject(subject) if subject else None
    with connect(address, database) as client:
        columns = {"subject": "subject", "status": "status", "suspended until": "suspended_until"}
        _show(client.read_accounts(subject=who), as_json, columns)
