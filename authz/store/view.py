"""Decisions read the source of truth through here: one transaction is one snapshot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import Connection, Engine, bindparam, select, tuple_

from authz.domain.entities import (
    Course,
    CourseKey,
    EntityKind,
    Key,
    Membership,
    Resource,
    Session,
    SessionKey,
    Share,
    ShareKey,
)
from authz.domain.ids import ResourceRef, Scope, Subject
from authz.store import tables
from authz.store.engine import read_transaction
from authz.store.rows import ENTITY_TABLES, key_values

_BY_KEY = {
    kind: select(stored.table).where(
        *(stored.table.c[name] == bindparam(name) for name in stored.key_columns)
    )
    for kind, stored in ENTITY_TABLES.items()
}
_REVISION = select(tables.counter.c.revision)
_OF_SUBJECT = select(tables.memberships).where(
    tables.memberships.c.subject_type == bindparam("subject_type"),
    tables.memberships.c.subject_id == bindparam("subject_id"),
    tuple_(tables.memberships.c.scope_kind, tables.memberships.c.scope_id).in_(
        bindparam("scopes", expanding=True)
    ),
)


class SqlSnapshot:
    """A `Snapshot` over one open transaction."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        # The first read fixes what a deferred transaction sees.
        self._revision: int = connection.execute(_REVISION).scalar_one()

    @property
    def revision(self) -> int:
        """The revision of this state."""
        return self._revision

    def course(self, course_id: str) -> Course | None:
        """The course, or None."""
        found = self._find(EntityKind.COURSE, CourseKey(course_id))
        return found if isinstance(found, Course) else None

    def session(self, session_id: str) -> Session | None:
        """The session, or None."""
        found = self._find(EntityKind.SESSION, SessionKey(session_id))
        return found if isinstance(found, Session) else None

    def resource(self, ref: ResourceRef) -> Resource | None:
        """The registered resource, or None."""
        found = self._find(EntityKind.RESOURCE, ref)
        return found if isinstance(found, Resource) else None

    def memberships(self, subject: Subject, scopes: Sequence[Scope]) -> tuple[Membership, ...]:
        """Those of the subject in any of the scopes."""
        parameters = {
            "subject_type": subject.type.value,
            "subject_id": subject.id,
            "scopes": [(scope.kind.value, scope.id) for scope in scopes],
        }
        rows = self._connection.execute(_OF_SUBJECT, parameters).mappings()
        found = (ENTITY_TABLES[EntityKind.MEMBERSHIP].from_row(row) for row in rows)
        return tuple(membership for membership in found if isinstance(membership, Membership))

    def share(self, ref: ResourceRef, subject: Subject) -> Share | None:
        """The share of the resource with the subject, or None."""
        found = self._find(EntityKind.SHARE, ShareKey(ref, subject))
        return found if isinstance(found, Share) else None

    def _find(self, kind: EntityKind, key: Key) -> object:
        stored = ENTITY_TABLES[kind]
        values = dict(zip(stored.key_columns, key_values(key, kind), strict=True))
        row = self._connection.execute(_BY_KEY[kind], values).mappings().one_or_none()
        return None if row is None else stored.from_row(row)


class SqlView:
    """A `View` of the source of truth."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @contextmanager
    def snapshot(self) -> Iterator[SqlSnapshot]:
        """The state of the last committed write."""
        with read_transaction(self._engine) as connection:
            yield SqlSnapshot(connection)
