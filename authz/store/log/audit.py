"""Reads the change log as an audit trail, in pages of which each looks at a bounded number of rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import accumulate
from typing import Any

from sqlalchemy import ColumnElement, Connection, Engine, Row, Select, and_, or_, select

from authz.domain.audit import ChangePage, ChangeQuery, LoggedChange
from authz.domain.ids import Scope, ScopeKind
from authz.domain.instants import Instant
from authz.domain.ports import Page
from authz.domain.tokens import TokenKeys
from authz.store import tables
from authz.store.database.engine import bounded_read_transaction
from authz.store.log.mutation_json import decode_mutation, json_names
from authz.store.log.reader import read_head
from authz.store.pagination import PagedRows, read_page
from authz.store.privacy.erased import require_not_erased_since

_MAX_PAGE_BYTES = 1 << 20
"""Of the mutations of a page, unless a single one is larger."""
_changes, _revisions = tables.changes, tables.revisions
_ORDER = (_changes.c.revision, _changes.c.position)
_COLUMNS = (
    *_ORDER,
    _changes.c.kind,
    _changes.c.mutation,
    _revisions.c.committed_at,
    _revisions.c.actor,
    _revisions.c.reason,
    _revisions.c.request_id,
)


class AuditTrail:
    """The audit trail in the database. Every call blocks."""

    def __init__(self, engine: Engine, keys: TokenKeys) -> None:
        self._engine = engine
        self._keys = keys

    def read_changes(self, query: ChangeQuery, page: Page) -> ChangePage:
        """A page of the changes that match a query, in the order that it asks for.

        Looks at a bounded number of rows: a page may have fewer changes than asked for, or none, and not be
        the last. Raises `FailedPreconditionError` (SUBJECT_ERASED) if the subject or the principal was erased
        since the query begins.
        """
        with bounded_read_transaction(self._engine) as connection:
            names = (str(query.subject), query.principal)
            require_not_erased_since(connection, names, query.since or 0)
            paged = PagedRows(
                rows=_rows(connection, query),
                order=_ORDER,
                ascending=query.oldest_first,
                conditions=partial(_conditions, query),
                fits=_fitting,
            )
            read_at = read_head(connection)
            rows, token = read_page(
                connection, paged, page, database_id=read_at.database_id, keys=self._keys, query=query
            )
        changes = (change for change in map(_logged, rows) if query.names(change))
        return ChangePage(tuple(changes), token, read_at)


def _rows(connection: Connection, query: ChangeQuery) -> Select[Any]:
    """The rows of the scope and the time of a query."""
    rows = select(*_COLUMNS).join_from(_changes, _revisions, _changes.c.revision == _revisions.c.revision)
    if query.since is not None:
        rows = rows.where(_changes.c.revision >= _first_since(connection, query.since))
    if query.until is not None:
        rows = rows.where(_changes.c.revision < _first_since(connection, query.until))
    if query.scope is not None:
        rows = rows.where(_within(query.scope))
    return rows


def _within(scope: Scope) -> ColumnElement[bool]:
    if scope.kind is ScopeKind.COURSE:
        return _changes.c.course_id == scope.id
    if scope.kind is ScopeKind.SESSION:
        return _changes.c.session_id == scope.id
    return and_(_changes.c.course_id.is_(None), _changes.c.session_id.is_(None))


def _first_since(connection: Connection, time: Instant) -> int:
    """The first revision that was committed at a time or later; beyond the head if there is none.

    Commit times never decrease, so revisions before it are earlier, and those after it are not.
    """
    time_of = _revisions.c.committed_at
    statement = select(_revisions.c.revision).where(time_of >= time)
    first = connection.execute(statement.order_by(time_of, _revisions.c.revision).limit(1)).scalar()
    return read_head(connection).revision + 1 if first is None else int(first)


def _conditions(query: ChangeQuery, columns: Any) -> Iterator[ColumnElement[bool]]:
    """The conditions without an index. `ChangeQuery.names` is exact; these ignore case."""
    if query.kinds:
        yield columns.kind.in_([kind.value for kind in query.kinds])
    if query.principal:
        actor = columns.actor
        yield or_(
            actor == query.principal,
            actor.startswith(f"{query.principal} for ", autoescape=True),
            actor.endswith(f" for {query.principal}", autoescape=True),
        )
    for named in (query.subject, query.resource):
        if named is not None:
            yield json_names(columns.mutation, named)


def _fitting(rows: Sequence[Row[Any]]) -> int:
    """How many of the rows make a page; at least one of any."""
    sizes = accumulate(len(row.mutation) for row in rows)
    return max(sum(size <= _MAX_PAGE_BYTES for size in sizes), min(len(rows), 1))


def _logged(row: Row[Any]) -> LoggedChange:
    return LoggedChange(
        revision=row.revision,
        committed_at=row.committed_at,
        actor=row.actor,
        reason=row.reason,
        request_id=row.request_id,
        mutation=decode_mutation(row.mutation),
    )
