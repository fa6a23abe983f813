"""Pages of entities, by key: a page costs the same however far in it is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import singledispatch
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Engine, literal, select, tuple_

from authz.domain.entities import EntityKind, Versioned
from authz.domain.errors import ErrorReason, InvalidArgumentError
from authz.domain.ids import Scope, Subject
from authz.domain.ports import (
    CourseFilter,
    Listing,
    MembershipFilter,
    Page,
    ResourceFilter,
    SessionFilter,
    ShareFilter,
)
from authz.domain.tokens import PageToken, decode_page_token, encode_page_token, malformed_token
from authz.store import tables
from authz.store.engine import read_transaction
from authz.store.log_reader import read_head
from authz.store.rows import ENTITY_TABLES, key_values

MAX_PAGE_SIZE = 1000

Filter = CourseFilter | SessionFilter | MembershipFilter | ResourceFilter | ShareFilter
Condition = ColumnElement[bool]


def list_entities(engine: Engine, kind: EntityKind, wanted: Filter, page: Page) -> Listing[Any]:
    """One page of the entities of a kind that pass a filter, with the state it was read from."""
    if not 1 <= page.size <= MAX_PAGE_SIZE:
        raise InvalidArgumentError(
            ErrorReason.MALFORMED_FIELD,
            f"page_size is {page.size}; ask for 1 to {MAX_PAGE_SIZE}",
            field="page_size",
        )
    stored = ENTITY_TABLES[kind]
    order = [stored.table.c[name] for name in stored.key_columns]
    query = hashlib.blake2b(msgspec.json.encode((kind, wanted)), digest_size=8).hexdigest()
    statement = select(stored.table).where(*conditions(wanted)).order_by(*order).limit(page.size + 1)
    if page.token:
        last_key = decode_page_token(page.token, query=query).last_key
        if len(last_key) != len(order):
            raise malformed_token("page_token")
        statement = statement.where(tuple_(*order) > tuple_(*(literal(text) for text in last_key)))
    with read_transaction(engine) as connection:
        read_at = read_head(connection)
        rows = connection.execute(statement).all()
    items = tuple(Versioned(stored.from_row(row), row.version) for row in rows[: page.size])
    more = len(rows) > page.size
    last = PageToken(query, key_values(items[-1].entity.key, kind)) if more else None
    return Listing(items, "" if last is None else encode_page_token(last), read_at)


@singledispatch
def conditions(wanted: Filter) -> Iterator[Condition]:
    """What a filter asks, as SQL."""
    raise TypeError(f"not a filter: {type(wanted).__name__}")


@conditions.register
def _courses(wanted: CourseFilter) -> Iterator[Condition]:
    if wanted.ids:
        yield tables.courses.c.id.in_(wanted.ids)
    if wanted.states:
        yield tables.courses.c.state.in_([state.value for state in wanted.states])


@conditions.register
def _sessions(wanted: SessionFilter) -> Iterator[Condition]:
    columns = tables.sessions.c
    if wanted.ids:
        yield columns.id.in_(wanted.ids)
    if wanted.course_id is not None:
        yield columns.course_id == wanted.course_id
    if wanted.states:
        yield columns.state.in_([state.value for state in wanted.states])


@conditions.register
def _memberships(wanted: MembershipFilter) -> Iterator[Condition]:
    columns = tables.memberships.c
    if wanted.subject is not None:
        yield from _is_subject(columns, "subject", wanted.subject)
    if wanted.scope is not None:
        yield from _is_scope(columns, wanted.scope)
    if wanted.role is not None:
        yield columns.role == wanted.role
    if wanted.statuses:
        yield columns.status.in_([status.value for status in wanted.statuses])
    if wanted.source is not None:
        yield columns.source == wanted.source


@conditions.register
def _resources(wanted: ResourceFilter) -> Iterator[Condition]:
    columns = tables.resources.c
    if wanted.type is not None:
        yield columns.type == wanted.type
    if wanted.ids:
        yield columns.id.in_(wanted.ids)
    if wanted.scope is not None:
        yield from _is_scope(columns, wanted.scope)
    if wanted.owner is not None:
        yield from _is_subject(columns, "owner", wanted.owner)


@conditions.register
def _shares(wanted: ShareFilter) -> Iterator[Condition]:
    columns = tables.shares.c
    if wanted.resource is not None:
        yield columns.resource_type == wanted.resource.type
        yield columns.resource_id == wanted.resource.id
    if wanted.subject is not None:
        yield from _is_subject(columns, "subject", wanted.subject)


def _is_subject(columns: Any, prefix: str, subject: Subject) -> Iterator[Condition]:
    yield columns[f"{prefix}_type"] == subject.type.value
    yield columns[f"{prefix}_id"] == subject.id


def _is_scope(columns: Any, scope: Scope) -> Iterator[Condition]:
    yield columns.scope_kind == scope.kind.value
    yield columns.scope_id == scope.id
