"""Reads the change log: whole revisions, or chunks of bounded size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, TypeAlias

import msgspec
from sqlalchemy import Connection, Engine, Row, bindparam, literal, select, tuple_, update

from authz.domain.entities import Erasure, ErasureStatus, Key
from authz.domain.errors import OutOfRangeError
from authz.domain.ids import Subject
from authz.domain.mutations import Change, ChangePart, ChangeScope, LogChunk, LogTail
from authz.domain.tokens import ConsistencyToken, TokenKeys
from authz.store import tables
from authz.store.database.engine import read_transaction
from authz.store.log.mutation_json import decode_mutation
from authz.store.rows import subject_of

RecordVersion: TypeAlias = tuple[int, Key]
"""A record as a revision left it."""

MAX_MUTATIONS_PER_READ = 10_000
"""About 10 MB, however far behind the reader is. A larger revision is read as a whole."""
_HEAD = select(
    tables.counter.c.revision,
    tables.counter.c.database_id,
    tables.revisions.c.committed_at,
    tables.revisions.c.nonce,
).outerjoin_from(tables.counter, tables.revisions, tables.revisions.c.revision == tables.counter.c.revision)
_TOKEN_KEY = select(tables.counter.c.token_key)
_RESUMABLE_FROM = select(tables.counter.c.resumable_from)
_HELD_HEAD = _HEAD.with_for_update(of=tables.counter)
_STATE = select(tables.revisions.c.committed_at, tables.revisions.c.nonce).where(
    tables.revisions.c.revision == bindparam("number")
)


def read_head(connection: Connection) -> ConsistencyToken:
    """The last committed state in the snapshot of a transaction."""
    return _head(connection.execute(_HEAD).one())


def read_token_key(connection: Connection) -> bytes:
    return bytes.fromhex(connection.execute(_TOKEN_KEY).scalar_one())


def add_token_key(connection: Connection, database_id: str, keys: TokenKeys) -> None:
    """Let `keys` know the key of the database's tokens."""
    if database_id not in keys:
        keys.add(database_id, read_token_key(connection))


def lock_head(connection: Connection) -> ConsistencyToken:
    """The last committed state. No other transaction writes until this one ends.

    SQLite has no row locks, and needs none: a write transaction has the only write lock from its start.
    """
    row = connection.execute(_HELD_HEAD).one()
    if row.committed_at is None and row.revision:
        # After a wait for another write, PostgreSQL re-reads the locked row, but not the joined one.
        return read_head(connection)
    return _head(row)


def _head(row: Any) -> ConsistencyToken:
    return ConsistencyToken(row.database_id, row.revision, row.committed_at or 0, row.nonce or 0)


def read_state(connection: Connection, database_id: str, revision: int) -> ConsistencyToken | None:
    """The state at a revision. None if the log does not have it."""
    if revision == 0:
        return ConsistencyToken(database_id, 0)
    row = connection.execute(_STATE, {"number": revision}).one_or_none()
    return None if row is None else ConsistencyToken(database_id, revision, row.committed_at, row.nonce)


def is_resumable(connection: Connection, revision: int) -> bool:
    """Whether who holds a revision may continue from it: nothing before it was rewritten since."""
    first: int = connection.execute(_RESUMABLE_FROM).scalar_one()
    return revision >= first


def raise_resumable_from(connection: Connection, revision: int) -> None:
    """Let nobody continue from before a revision."""
    counter = tables.counter
    connection.execute(
        update(counter).where(counter.c.resumable_from < revision).values(resumable_from=revision)
    )


def read_tail(engine: Engine, after: int, limit: int) -> LogTail:
    """See `ChangeSource.follow`."""
    with read_transaction(engine) as connection:
        head = read_head(connection)
        state: ConsistencyToken | None = head
        if head.revision != after:
            is_known = is_resumable(connection, after)
            state = read_state(connection, head.database_id, after) if is_known else None
        changes = _read_changes(connection, after, limit) if head.revision > after else ()
    return LogTail(head, state, changes)


def _read_changes(connection: Connection, after: int, limit: int) -> tuple[Change, ...]:
    revisions, changes = tables.revisions, tables.changes
    heads = connection.execute(
        select(revisions).where(revisions.c.revision > after).order_by(revisions.c.revision).limit(limit)
    ).all()
    if not heads:
        return ()
    first = heads[0].revision
    following = select(changes).order_by(changes.c.revision, changes.c.position)
    rows = connection.execute(
        following.where(changes.c.revision >= first, changes.c.revision <= heads[-1].revision).limit(
            MAX_MUTATIONS_PER_READ + 1
        )
    ).all()
    if len(rows) > MAX_MUTATIONS_PER_READ:
        cut = max(rows[-1].revision, first + 1)
        heads = [head for head in heads if head.revision < cut]
        if rows[-1].revision == first:
            rows = connection.execute(following.where(changes.c.revision == first)).all()
        rows = [row for row in rows if row.revision < cut]
    of_revision: dict[int, list[Row[Any]]] = {head.revision: [] for head in heads}
    for row in rows:
        of_revision[row.revision].append(row)
    return tuple(_change(head, of_revision[head.revision]) for head in heads)


def read_chunk(engine: Engine, token: ConsistencyToken, skip: int, limit: int) -> LogChunk:
    """See `SqlDirectory.read_log`."""
    revisions, changes = tables.revisions, tables.changes
    place = tuple_(changes.c.revision, changes.c.position)
    after = token.revision
    with read_transaction(engine) as connection:
        state = read_head(connection)
        head = state.revision
        if after > head or token.database_id != state.database_id:
            raise _expired("the token is ahead of this database, as after a restore")
        known = read_state(connection, token.database_id, after)
        if known is not None and not _may_be(token, known):
            raise _expired("the token is of a history that this database has left, as after a restore")
        if after < head and not is_resumable(connection, after):
            raise _expired(
                "a subject was erased from the changes that follow the token, or retention has purged some"
            )
        rows = connection.execute(
            select(changes, *(column for column in revisions.c if column.name != "revision"))
            .join(revisions, revisions.c.revision == changes.c.revision)
            .where(place >= tuple_(literal(after + 1), literal(skip)))
            .order_by(changes.c.revision, changes.c.position)
            .limit(limit + 1)
        ).all()
        parts = list(_parts(rows, limit))
        erasing = _erasing(connection, parts)
    if not rows and after < head:
        raise _expired("what follows the token is no longer in the change log")
    _require_gapless(rows, (after + 1, skip))
    return LogChunk(tuple(_with_erasing(part, erasing) for part in parts), head)


def _parts(rows: Sequence[Row[Any]], limit: int) -> Iterator[ChangePart]:
    """The revisions of the first rows. The row beyond the limit shows whether the last revision continues."""
    going_on = rows[limit].revision if len(rows) > limit else None
    for revision, grouped in groupby(rows[:limit], key=lambda row: row.revision):
        of_revision = list(grouped)
        yield ChangePart(_change(of_revision[0], of_revision), is_last=revision != going_on)


def _erasing(connection: Connection, parts: Sequence[ChangePart]) -> dict[Subject, Subject]:
    """Whom the erasures that begin in some changes are of, by their pseudonyms.

    The database knows it until nobody may continue from before the change: `begin_history`.
    """
    if not any(True for part in parts for _ in _begun(part.change)):
        return {}
    columns = tables.erasure_steps.c
    rows = connection.execute(select(tables.erasure_steps).where(columns.subject_id.is_not(None))).all()
    found = {}
    for row in rows:
        pseudonym = subject_of(row, "pseudonym")
        found[pseudonym] = Subject(pseudonym.type, row.subject_id)
    return found


def _with_erasing(part: ChangePart, erasing: Mapping[Subject, Subject]) -> ChangePart:
    found = tuple(erasing[each] for each in _begun(part.change) if each in erasing)
    return ChangePart(msgspec.structs.replace(part.change, erasing=found), part.is_last) if found else part


def _begun(change: Change) -> Iterator[Subject]:
    """The pseudonyms of the erasures that a change begins."""
    for mutation in change.mutations:
        if isinstance(mutation.target, Erasure) and mutation.target.status is ErasureStatus.ERASING:
            yield mutation.target.pseudonym


def _may_be(token: ConsistencyToken, state: ConsistencyToken) -> bool:
    """Whether a token may be of this state: the fields that it has must be equal."""
    return token.committed_at in (0, state.committed_at) and token.nonce in (0, state.nonce)


def _require_gapless(rows: Sequence[Row[Any]], first: tuple[int, int]) -> None:
    """Raise if a position is missing: a truncated log must not look like one without changes."""
    allowed: tuple[tuple[int, int], ...] = (first,)
    for row in rows:
        if (row.revision, row.position) not in allowed:
            raise _expired("what follows the token is no longer in the change log")
        allowed = ((row.revision, row.position + 1), (row.revision + 1, 0))


def _expired(problem: str) -> OutOfRangeError:
    return OutOfRangeError(
        f"{problem}; read the directory again and watch from the state that was read", field="after"
    )


def _change(head: Row[Any], rows: Sequence[Row[Any]]) -> Change:
    return Change(
        revision=head.revision,
        committed_at=head.committed_at,
        nonce=head.nonce,
        actor=head.actor,
        reason=head.reason,
        request_id=head.request_id,
        mutations=tuple(decode_mutation(row.mutation) for row in rows),
        scopes=tuple(ChangeScope(row.course_id, row.session_id) for row in rows),
    )
