"""Between entities and rows: one mapping for each kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from sqlalchemy import RowMapping, Table

from authz.domain.entities import (
    Course,
    CourseKey,
    CourseState,
    Entity,
    EntityKind,
    Key,
    Membership,
    MembershipKey,
    MembershipStatus,
    Resource,
    Session,
    SessionKey,
    SessionState,
    Share,
    ShareKey,
    ShareLevel,
    Visibility,
)
from authz.domain.ids import ResourceRef, Scope, ScopeKind, Subject, SubjectType
from authz.store import tables

Row = RowMapping


class EntityTable(msgspec.Struct, frozen=True):
    """How one kind of entity is stored. Key columns, the primary key, are text, in the order of listings."""

    table: Table
    key_columns: tuple[str, ...]
    key_values: Callable[[Any], tuple[str, ...]]
    """Of a key, in the order of `key_columns`."""
    to_row: Callable[[Any], dict[str, Any]]
    """All columns but `version`."""
    from_row: Callable[[Row], Entity]


def _subject(row: Row, prefix: str) -> Subject:
    return Subject(SubjectType(row[f"{prefix}_type"]), row[f"{prefix}_id"])


def _scope(row: Row) -> Scope:
    return Scope(ScopeKind(row["scope_kind"]), row["scope_id"])


def _course_row(entity: Course) -> dict[str, Any]:
    return {
        "id": entity.id,
        "state": entity.state.value,
        "ai_enabled": entity.ai_enabled,
        "edit_window_us": entity.edit_window_us,
    }


def _course(row: Row) -> Course:
    return Course(
        id=row["id"],
        state=CourseState(row["state"]),
        ai_enabled=bool(row["ai_enabled"]),
        edit_window_us=row["edit_window_us"],
    )


def _session_row(entity: Session) -> dict[str, Any]:
    return {
        "id": entity.id,
        "course_id": entity.course_id,
        "state": entity.state.value,
        "starts_at": entity.starts_at,
        "ends_at": entity.ends_at,
        "open_to_course": entity.open_to_course,
    }


def _session(row: Row) -> Session:
    return Session(
        id=row["id"],
        course_id=row["course_id"],
        state=SessionState(row["state"]),
        starts_at=row["starts_at"],
        ends_at=row["ends_at"],
        open_to_course=bool(row["open_to_course"]),
    )


def _membership_values(key: MembershipKey) -> tuple[str, ...]:
    return (key.scope.kind.value, key.scope.id, key.subject.type.value, key.subject.id, key.role)


def _membership_row(entity: Membership) -> dict[str, Any]:
    return {
        "scope_kind": entity.scope.kind.value,
        "scope_id": entity.scope.id,
        "subject_type": entity.subject.type.value,
        "subject_id": entity.subject.id,
        "role": entity.role,
        "status": entity.status.value,
        "starts_at": entity.starts_at,
        "ends_at": entity.ends_at,
        "source": entity.source,
        "source_ref": entity.source_ref,
    }


def _membership(row: Row) -> Membership:
    return Membership(
        subject=_subject(row, "subject"),
        scope=_scope(row),
        role=row["role"],
        status=MembershipStatus(row["status"]),
        starts_at=row["starts_at"],
        ends_at=row["ends_at"],
        source=row["source"],
        source_ref=row["source_ref"],
    )


def _resource_row(entity: Resource) -> dict[str, Any]:
    return {
        "type": entity.type,
        "id": entity.id,
        "scope_kind": entity.scope.kind.value,
        "scope_id": entity.scope.id,
        "owner_type": None if entity.owner is None else entity.owner.type.value,
        "owner_id": None if entity.owner is None else entity.owner.id,
        "visibility": entity.visibility.value,
        "published": entity.published,
        "available_from": entity.available_from,
        "available_until": entity.available_until,
        "created_at": entity.created_at,
        "locked": entity.locked,
        "ai_allowed": entity.ai_allowed,
    }


def _resource(row: Row) -> Resource:
    return Resource(
        type=row["type"],
        id=row["id"],
        scope=_scope(row),
        owner=None if row["owner_id"] is None else _subject(row, "owner"),
        visibility=Visibility(row["visibility"]),
        published=bool(row["published"]),
        available_from=row["available_from"],
        available_until=row["available_until"],
        created_at=row["created_at"],
        locked=bool(row["locked"]),
        ai_allowed=bool(row["ai_allowed"]),
    )


def _share_values(key: ShareKey) -> tuple[str, ...]:
    return (key.resource.type, key.resource.id, key.subject.type.value, key.subject.id)


def _share_row(entity: Share) -> dict[str, Any]:
    return {
        "resource_type": entity.resource.type,
        "resource_id": entity.resource.id,
        "subject_type": entity.subject.type.value,
        "subject_id": entity.subject.id,
        "level": entity.level.value,
    }


def _share(row: Row) -> Share:
    return Share(
        resource=ResourceRef(row["resource_type"], row["resource_id"]),
        subject=_subject(row, "subject"),
        level=ShareLevel(row["level"]),
    )


def _id_value(key: CourseKey | SessionKey) -> tuple[str, ...]:
    return (key.id,)


def _ref_values(key: ResourceRef) -> tuple[str, ...]:
    return (key.type, key.id)


ENTITY_TABLES: dict[EntityKind, EntityTable] = {
    EntityKind.COURSE: EntityTable(tables.courses, ("id",), _id_value, _course_row, _course),
    EntityKind.SESSION: EntityTable(tables.sessions, ("id",), _id_value, _session_row, _session),
    EntityKind.MEMBERSHIP: EntityTable(
        tables.memberships,
        ("scope_kind", "scope_id", "subject_type", "subject_id", "role"),
        _membership_values,
        _membership_row,
        _membership,
    ),
    EntityKind.RESOURCE: EntityTable(tables.resources, ("type", "id"), _ref_values, _resource_row, _resource),
    EntityKind.SHARE: EntityTable(
        tables.shares,
        ("resource_type", "resource_id", "subject_type", "subject_id"),
        _share_values,
        _share_row,
        _share,
    ),
}
"""In the order in which rows may be inserted: what is referred to comes first."""


def key_values(key: Key, kind: EntityKind) -> tuple[str, ...]:
    """The key as it stands in the key columns."""
    return ENTITY_TABLES[kind].key_values(key)
