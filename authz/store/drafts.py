"""Keeps drafts of the policy in a table of their own, outside the change log."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, delete, func, insert, select, update

from authz.domain.drafts import MAX_DRAFTS, PolicyDraft
from authz.domain.errors import AlreadyExistsError, ErrorReason, FailedPreconditionError, NotFoundError
from authz.store.engine import read_transaction, write_transaction
from authz.store.log_reader import hold_head
from authz.store.tables import policy_drafts as table

_NO_FILES = "{}"


class SqlDrafts:
    """A `Drafts` in SQLite or PostgreSQL."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(self, draft: PolicyDraft) -> None:
        """See `Drafts.create`."""
        with write_transaction(self._engine) as connection:
            if connection.dialect.name == "postgresql":
                hold_head(connection)  # one at a time, as on SQLite: so no two are the last that may be kept
            if connection.execute(select(table.c.id).where(table.c.id == draft.id)).first() is not None:
                raise AlreadyExistsError(
                    ErrorReason.ENTITY_EXISTS,
                    f"there is a draft `{draft.id}`; edit it, delete it, or take another name",
                    key=draft.id,
                )
            if connection.execute(select(func.count()).select_from(table)).scalar_one() >= MAX_DRAFTS:
                raise FailedPreconditionError(
                    ErrorReason.TOO_MANY_DRAFTS,
                    f"there are {MAX_DRAFTS} drafts, and no more are kept; delete one that nobody needs",
                    limit=str(MAX_DRAFTS),
                )
            connection.execute(insert(table), msgspec.structs.asdict(draft))

    def list(self) -> tuple[PolicyDraft, ...]:
        """See `Drafts.list`."""
        columns = (column for column in table.c if column is not table.c.files)
        with read_transaction(self._engine) as connection:
            rows = connection.execute(select(*columns).order_by(table.c.id)).mappings().all()
        return tuple(PolicyDraft(**dict(row), files=_NO_FILES) for row in rows)

    def read(self, draft_id: str) -> PolicyDraft:
        """See `Drafts.read`."""
        with read_transaction(self._engine) as connection:
            return _read(connection, draft_id)

    def replace(self, draft: PolicyDraft, *, etag: int) -> None:
        """See `Drafts.replace`."""
        self._change(update(table).values(msgspec.structs.asdict(draft)), draft.id, etag)

    def delete(self, draft_id: str, *, etag: int) -> None:
        """See `Drafts.delete`."""
        self._change(delete(table), draft_id, etag)

    def _change(self, statement: Any, draft_id: str, etag: int) -> None:
        with write_transaction(self._engine) as connection:
            found = connection.execute(statement.where(table.c.id == draft_id, table.c.etag == etag))
            if not found.rowcount:
                raise _read(connection, draft_id).stale()


def _read(connection: Connection, draft_id: str) -> PolicyDraft:
    row = connection.execute(select(table).where(table.c.id == draft_id)).mappings().first()
    if row is None:
        raise NotFoundError(
            ErrorReason.DRAFT_NOT_FOUND,
            f"there is no draft `{draft_id}`; `ReadPolicyDrafts` lists them",
            id=draft_id,
        )
    return PolicyDraft(**dict(row))
