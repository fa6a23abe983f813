"""Keeps drafts of the policy in a table of their own, outside the change log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Engine, and_, delete, func, insert, or_, select, update

from authz.domain.drafts import (
    MAX_DRAFTS,
    MAX_DRAFTS_OF_COURSE,
    DraftKey,
    PolicyDraft,
    Publication,
    no_course,
    of_course,
)
from authz.domain.errors import AlreadyExistsError, ErrorReason, FailedPreconditionError, NotFoundError
from authz.domain.files import NO_FILES
from authz.domain.ids import PLATFORM, Scope, course_scope
from authz.domain.instants import Instant
from authz.store.database.engine import read_transaction, write_transaction
from authz.store.log.reader import lock_head
from authz.store.rows import ENTITY_ROWS
from authz.store.tables import policy_drafts as table


class Drafts:
    """Where drafts are kept. They are in no change log: no server decides by them. Every call blocks."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(self, draft: PolicyDraft) -> None:
        """Raises `AlreadyExistsError` if there is one with this key, and `FailedPreconditionError`
        (TOO_MANY_DRAFTS) if as many are kept as may be."""
        with write_transaction(self._engine) as connection:
            lock_head(connection)  # one at a time: so no two are the last that may be kept
            if connection.execute(select(table.c.id).where(_is(draft.key))).first() is not None:
                raise AlreadyExistsError(
                    ErrorReason.ENTITY_EXISTS,
                    f"there is a draft {draft.key}; edit it, delete it, or take another name",
                    key=draft.id,
                )
            _require_course(connection, draft.scope)
            limit = MAX_DRAFTS if draft.scope == PLATFORM else MAX_DRAFTS_OF_COURSE
            kept = select(func.count()).select_from(table).where(table.c.course_id == draft.scope.id)
            if connection.execute(kept).scalar_one() >= limit:
                raise FailedPreconditionError(
                    ErrorReason.TOO_MANY_DRAFTS,
                    f"there are {limit} drafts, and no more are kept; delete one that nobody needs",
                    limit=str(limit),
                )
            connection.execute(insert(table), _row(draft))

    def list(self, scope: Scope) -> tuple[PolicyDraft, ...]:
        """All drafts of the platform or of a course, ordered by id, without files.

        Raises `FailedPreconditionError` (REFERENCE_NOT_FOUND) if there is no such course.
        """
        columns = (column for column in table.c if column is not table.c.files)
        with read_transaction(self._engine) as connection:
            those = select(*columns).where(table.c.course_id == scope.id).order_by(table.c.id)
            rows = connection.execute(those).mappings().all()
            if not rows:
                _require_course(connection, scope)
        return tuple(_draft({**row, "files": NO_FILES}) for row in rows)

    def read(self, key: DraftKey) -> PolicyDraft:
        """Raises `NotFoundError` (DRAFT_NOT_FOUND)."""
        with read_transaction(self._engine) as connection:
            return _read(connection, key)

    def replace(self, draft: PolicyDraft, *, etag: int) -> None:
        """Store another state of a draft in place of the one with an etag.

        Raises `NotFoundError`, and `FailedPreconditionError` if the draft has another etag.
        """
        self._change(update(table).values(_row(draft)), draft.key, etag)

    def delete(self, key: DraftKey, *, etag: int) -> None:
        """Raises as `replace`."""
        self._change(delete(table), key, etag)

    def claim(self, now: Instant, until: Instant) -> PolicyDraft | None:
        """Take the draft that is due first and is not claimed at `now`, of any policy, until `until`.

        None if there is none, or another process was faster. With an older etag it cannot be changed.
        """
        free = or_(table.c.claimed_until.is_(None), table.c.claimed_until <= now)
        due = select(table).where(table.c.publish_at <= now, free).order_by(table.c.publish_at).limit(1)
        with read_transaction(self._engine) as connection:
            row = connection.execute(due).mappings().first()
        if row is None:
            return None
        draft = _draft(row)
        claimed = msgspec.structs.replace(draft, etag=draft.etag + 1, claimed_until=until)
        try:
            self.replace(claimed, etag=draft.etag)
        except (NotFoundError, FailedPreconditionError):
            return None
        return claimed

    def renew_claim(self, draft: PolicyDraft, until: Instant) -> None:
        """Keep a claimed draft until a later time, unless it was changed since, or claimed by another."""
        claimed = update(table).values(claimed_until=until).where(_is(draft.key), table.c.etag == draft.etag)
        with write_transaction(self._engine) as connection:
            connection.execute(claimed)

    def _change(self, statement: Any, key: DraftKey, etag: int) -> None:
        with write_transaction(self._engine) as connection:
            found = connection.execute(statement.where(_is(key), table.c.etag == etag))
            if not found.rowcount:
                raise _read(connection, key).stale()


def require_draft(connection: Connection, draft: PolicyDraft) -> None:
    """Raise `NotFoundError` if a draft was deleted meanwhile, also if another draft has its name now."""
    if _read(connection, draft.key).created_at != draft.created_at:
        raise _not_found(draft.key)


def _require_course(connection: Connection, scope: Scope) -> None:
    courses = ENTITY_ROWS["course"].table
    found = select(courses).where(courses.c.id == scope.id)
    if scope != PLATFORM and connection.execute(found).first() is None:
        raise no_course(scope)


def _is(key: DraftKey) -> ColumnElement[bool]:
    return and_(table.c.id == key.id, table.c.course_id == key.scope.id)


def _read(connection: Connection, key: DraftKey) -> PolicyDraft:
    row = connection.execute(select(table).where(_is(key))).mappings().first()
    if row is None:
        raise _not_found(key)
    return _draft(row)


def _not_found(key: DraftKey) -> NotFoundError:
    course = of_course(key.scope)
    message = (
        f"there is no draft {key}; `authz policy draft list{course}` lists them, and"
        f" `authz policy history{course}` what was published"
    )
    return NotFoundError(ErrorReason.DRAFT_NOT_FOUND, message, id=key.id)


def _row(draft: PolicyDraft) -> dict[str, Any]:
    publication = draft.publication
    values = msgspec.structs.asdict(draft)
    del values["scope"]
    return values | {
        "course_id": draft.scope.id,
        "publish_at": draft.publish_at,
        "publication": None if publication is None else msgspec.json.encode(publication).decode(),
    }


def _draft(row: Mapping[Any, Any]) -> PolicyDraft:
    fields = {name: row[name] for name in PolicyDraft.__struct_fields__ if name != "scope"}
    text, course_id = fields["publication"], row["course_id"]
    fields["publication"] = None if text is None else msgspec.json.decode(text, type=Publication)
    return PolicyDraft(**fields, scope=course_scope(course_id) if course_id else PLATFORM)
