"""Between entities and rows: one mapping for each kind."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import msgspec
from sqlalchemy import Table

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

Row: TypeAlias = Iterable[Any]
"""All columns of a table in their order. By name a column costs more than all that is made of it."""


class EntityTable(msgspec.Struct, frozen=True):
    """How one kind of entity is stored. Key columns, the primary key, are text, in the order of listings."""

    table: Table
    key_columns: tuple[str, ...]
    key_values: Callable[[Any], tuple[str, ...]]
    """Of a key, in the order of `key_columns`."""
    to_row: Callable[[Any], dict[str, Any]]
    """All columns but `version`."""
    from_row: Callable[[Row], Entity]


_SCOPE_KINDS = {kind.value: kind for kind in ScopeKind}
_SUBJECT_TYPES = {kind.value: kind for kind in SubjectType}
_COURSE_STATES = {state.value: state for state in CourseState}
_SESSION_STATES = {state.value: state for state in SessionState}
_STATUSES = {status.value: status for status in MembershipStatus}
_VISIBILITIES = {visibility.value: visibility for visibility in Visibility}
_LEVELS = {level.value: level for level in ShareLevel}
"""A look-up costs a tenth of the call that makes a member of an enum."""


def scope_of(kind: str, id_: str) -> Scope:
    """The scope of two columns."""
    return Scope(_SCOPE_KINDS[kind], id_)


def subject_of(kind: str, id_: str) -> Subject:
    """The subject of two columns."""
    return Subject(_SUBJECT_TYPES[kind], id_)


def _course_row(entity: Course) -> dict[str, Any]:
    return {
        "id": entity.id,
        "state": entity.state.value,
        "ai_enabled": entity.ai_enabled,
        "edit_window_us": entity.edit_window_us,
    }


def _course(row: Row) -> Course:
    id_, state, ai_enabled, edit_window_us, _ = row
    return Course(id=id_, state=_COURSE_STATES[state], ai_enabled=ai_enabled, edit_window_us=edit_window_us)


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
    id_, course_id, state, starts_at, ends_at, open_to_course, _ = row
    return Session(
        id=id_,
        course_id=course_id,
        state=_SESSION_STATES[state],
        starts_at=starts_at,
        ends_at=ends_at,
        open_to_course=open_to_course,
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


def membership_of(row: Row) -> Membership:
    """The membership of all columns."""
    scope_kind, scope_id, subject_type, subject_id, role, status, starts_at, ends_at, source, ref, _ = row
    return Membership(
        subject=subject_of(subject_type, subject_id),
        scope=scope_of(scope_kind, scope_id),
        role=role,
        status=_STATUSES[status],
        starts_at=starts_at,
        ends_at=ends_at,
        source=source,
        source_ref=ref,
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
    type_, id_, scope_kind, scope_id, owner_type, owner_id, visibility, *others, _ = row
    published, available_from, available_until, created_at, locked, ai_allowed = others
    return Resource(
        type=type_,
        id=id_,
        scope=scope_of(scope_kind, scope_id),
        owner=None if owner_id is None else subject_of(owner_type, owner_id),
        visibility=_VISIBILITIES[visibility],
        published=published,
        available_from=available_from,
        available_until=available_until,
        created_at=created_at,
        locked=locked,
        ai_allowed=ai_allowed,
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
    resource_type, resource_id, subject_type, subject_id, level, _ = row
    return Share(
        resource=ResourceRef(resource_type, resource_id),
        subject=subject_of(subject_type, subject_id),
        level=_LEVELS[level],
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
        membership_of,
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
