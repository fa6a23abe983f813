"""`authz courses`, `sessions`, `memberships`, `resources`, `accounts`: list the directory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated

import msgspec
import typer

from authz.cli.check import Json
from authz.cli.connection import DEFAULT_ADDRESS, Address, Database, connect
from authz.cli.output import print_rows
from authz.domain.entities import Entity, Versioned
from authz.domain.ids import parse_scope, parse_subject
from authz.domain.instants import Instant, format_instant


def _when(instant: Instant | None) -> str:
    return "" if instant is None else format_instant(instant)


def _show(
    columns: Sequence[str], found: Iterable[Versioned[Entity]], as_json: bool, rows: Iterable[Sequence[str]]
) -> None:
    if as_json:
        for versioned in found:
            print(msgspec.json.encode(versioned).decode())
    else:
        print_rows(columns, rows)


def courses(address: Address = DEFAULT_ADDRESS, database: Database = "", as_json: Json = False) -> None:
    """List courses."""
    with connect(address, database) as client:
        found = list(client.read_courses())
    rows = ((c.entity.id, c.entity.state.value, str(c.entity.ai_enabled).lower()) for c in found)
    _show(("course", "state", "ai enabled"), found, as_json, rows)


def sessions(
    course: Annotated[str, typer.Option("--course", help="Only of this course.")] = "",
    address: Address = DEFAULT_ADDRESS,
    database: Database = "",
    as_json: Json = False,
) -> None:
    """List sessions."""
    with connect(address, database) as client:
        found = list(client.read_sessions(course))
    rows = (
        (e.id, e.course_id or "", e.state.value, _when(e.starts_at), _when(e.ends_at))
        for e in (s.entity for s in found)
    )
    _show(("session", "course", "state", "starts at", "ends at"), found, as_json, rows)


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
        found = list(client.read_memberships(subject=who, scope=where, role=role))
    rows = (
        (str(e.subject), str(e.scope), e.role, e.status.value, _when(e.starts_at), _when(e.ends_at))
        for e in (m.entity for m in found)
    )
    _show(("subject", "scope", "role", "status", "starts at", "ends at"), found, as_json, rows)


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
        found = list(client.read_resources(type_name=type_name, scope=where, owner=whose))
    rows = (
        (str(e.key), str(e.scope), str(e.owner or ""), e.visibility.value, str(e.published).lower())
        for e in (r.entity for r in found)
    )
    _show(("resource", "scope", "owner", "visibility", "published"), found, as_json, rows)


def accounts(
    subject: Annotated[str, typer.Option(help="Only of user:<id>.")] = "",
    address: Address = DEFAULT_ADDRESS,
    database: Database = "",
    as_json: Json = False,
) -> None:
    """List accounts."""
    who = parse_subject(subject) if subject else None
    with connect(address, database) as client:
        found = list(client.read_accounts(subject=who))
    rows = ((str(e.subject), e.status.value, _when(e.suspended_until)) for e in (a.entity for a in found))
    _show(("subject", "status", "suspended until"), found, as_json, rows)
