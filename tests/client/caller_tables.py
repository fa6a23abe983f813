"""The tables of a service that filters by a plan: one of its resources, one of their shares."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    MetaData,
    String,
    Table,
    delete,
    insert,
    select,
)

from authz.domain.entities import Course, Entity, Resource, Session, Share
from authz.domain.ids import ScopeKind, Subject
from tests.engine.test_isolation import COURSES

METADATA = MetaData()
ROWS = Table(
    "caller_rows",
    METADATA,
    Column("type", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("course_id", String),
    Column("session_id", String),
    Column("owner", String),
    Column("visibility", String),
    Column("published", Boolean),
    Column("available_from", BigInteger),
    Column("available_until", BigInteger),
    Column("created_at", BigInteger),
    Column("locked", Boolean),
    Column("ai_allowed", Boolean),
)
SHARES = Table(
    "caller_shares",
    METADATA,
    Column("type", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("subject", String, primary_key=True),
    Column("level", String),
)
FIELDS: dict[str, Any] = {each.name: each for each in ROWS.c if each.name not in ("type", "id")}


def fields_for(subject: Subject) -> dict[str, Any]:
    """The columns of a plan for a subject; the shares are in a table of their own."""
    level = select(SHARES.c.level).where(
        SHARES.c.type == ROWS.c.type, SHARES.c.id == ROWS.c.id, SHARES.c.subject == str(subject)
    )
    return {**FIELDS, "share_level": level.scalar_subquery()}


def row_of(entity: Course | Session | Resource) -> dict[str, Any]:
    """What a caller keeps of a record. The session of what is in one decides, whatever the course."""
    match entity:
        case Course(id=id_):
            return {"type": "course", "id": id_, "course_id": id_}
        case Session(id=id_, course_id=course_id):
            return {"type": "session", "id": id_, "course_id": course_id, "session_id": id_}
    in_session = entity.scope.kind is ScopeKind.SESSION
    plain = (
        "visibility",
        "published",
        "available_from",
        "available_until",
        "created_at",
        "locked",
        "ai_allowed",
    )
    return {
        "type": entity.type,
        "id": entity.id,
        "course_id": COURSES[0] if in_session else entity.scope.id,
        "session_id": entity.scope.id if in_session else None,
        "owner": None if entity.owner is None else str(entity.owner),
        **{name: getattr(entity, name) for name in plain},
    }


def keep(connection: Connection, entities: list[Entity]) -> None:
    """Let the tables of the caller have these records, and no other."""
    by_key = {entity.key: entity for entity in entities}
    connection.execute(delete(ROWS))
    connection.execute(delete(SHARES))
    for entity in by_key.values():
        if isinstance(entity, Course | Session | Resource):
            connection.execute(insert(ROWS), row_of(entity))
        elif isinstance(entity, Share):
            ref = entity.resource
            row = {
                "type": ref.type,
                "id": ref.id,
                "subject": str(entity.subject),
                "level": entity.level.value,
            }
            connection.execute(insert(SHARES), row)
