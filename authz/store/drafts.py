"""Keeps drafts of the policy in a table of their own, outside the change log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, delete, func, insert, or_, select, update

from authz.domain.drafts import MAX_DRAFTS, PolicyDraft, Publication
from authz.domain.errors import AlreadyExistsError, ErrorReason, FailedPreconditionError, NotFoundError
from authz.domain.instants import Instant
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
            connection.execute(insert(table), _row(draft))

    def list(self) -> tuple[PolicyDraft, ...]:
        """See `Drafts.list`."""
        columns = (column for column in table.c if column is not table.c.files)
        with read_transaction(self._engine) as connection:
            rows = connection.execute(select(*columns).order_by(table.c.id)).mappings().all()
        return tuple(_draft({**row, "files": _NO_FILES}) for row in rows)

    def read(self, draft_id: str) -> PolicyDraft:
        """See `Drafts.read`."""
        with read_transaction(self._engine) as connection:
            return _read(connection, draft_id)

    def replace(self, draft: PolicyDraft, *, etag: int) -> None:
        """See `Drafts.replace`."""
        self._change(update(table).values(_row(draft)), draft.id, etag)

    def delete(self, draft_id: str, *, etag: int) -> None:
        """See `Drafts.delete`."""
        self._change(delete(table), draft_id, etag)

    def claim(self, now: Instant, until: Instant) -> PolicyDraft | None:
        """See `Drafts.claim`."""
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
    return _draft(row)


def _row(draft: PolicyDraft) -> dict[str, Any]:
    publication = draft.publication
    return msgspec.structs.asdict(draft) | {
        "publish_at": draft.publish_at,
        "publication": None if publication is None else msgspec.json.encode(publication).decode(),
    }


def _draft(row: Mapping[Any, Any]) -> PolicyDraft:
    fields = {name: row[name] for name in PolicyDraft.__struct_fields__}
    text = fields["publication"]
    return PolicyDraft(
        **fields | {"publication": None if text is None else msgspec.json.decode(text, type=Publication)}
    )
