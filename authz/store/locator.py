"""Finds the course and the session that a record is in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from authz.domain.entities import Entity, Key, Session, SessionKey, Versioned, kind_of
from authz.domain.ids import Scope, ScopeKind, course_scope
from authz.domain.mutations import ChangeScope


class Locator:
    """Looks at the records around another by `row`, which gives None for those that are gone."""

    def __init__(self, row: Callable[[Key], Versioned[Entity] | None]) -> None:
        self._row = row
        self.removed: dict[Key, ChangeScope] = {}
        """The scopes of records whose row is gone."""

    def course_around(self, scope: Scope) -> Scope:
        """The course of a session that has one; else the scope itself."""
        found = self._row(SessionKey(scope.id)) if scope.kind is ScopeKind.SESSION else None
        course_id = (
            found.entity.course_id if found is not None and isinstance(found.entity, Session) else None
        )
        return scope if course_id is None else course_scope(course_id)

    def scope_of(self, entity: Entity) -> ChangeScope:
        """The course and the session of an entity, itself included."""
        ids: dict[ScopeKind, str] = {}
        record: Any = entity
        while record is not None:
            kind = kind_of(record)
            if kind.scope is not None:
                ids[kind.scope] = record.id
            record = kind.container_key(record)
            if record is not None and kind_of(record).container is not None:
                if record in self.removed:
                    return self.removed[record]
                found = self._row(record)
                record = None if found is None else found.entity
        return ChangeScope(ids.get(ScopeKind.COURSE), ids.get(ScopeKind.SESSION))
