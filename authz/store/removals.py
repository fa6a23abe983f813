"""Deletions whose contents are not all removed yet."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeAlias

import msgspec
from sqlalchemy import Connection, bindparam, select, update

from authz.domain.entities import Key
from authz.domain.errors import RemovalPendingError
from authz.domain.ids import Subject
from authz.domain.mutations import ChangeScope
from authz.domain.origin import Origin
from authz.store.bulk import delete_by_key, insert_rows, select_by_key
from authz.store.log.mutation_json import json_names
from authz.store.sharing import Member
from authz.store.tables import removals

Root: TypeAlias = Key | Member
"""What is removed: the contents of a record that was deleted, or what is shared with a former member."""

_RETRY_AFTER_S = 0.1
_OLDEST = select(removals).order_by(removals.c.since, removals.c.root).limit(bindparam("most"))
_STEP = update(removals).where(removals.c.root == bindparam("of_root")).values(steps=removals.c.steps + 1)
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Root)


class Removal(msgspec.Struct, frozen=True):
    """The contents of `root` are to be removed. The other fields describe the deletion that caused it."""

    root: Root
    scope: ChangeScope
    origin: Origin
    since: int


class RemovalProgress(msgspec.Struct, frozen=True):
    """How far the oldest removal has come: another value after each step, and for another removal."""

    root: str
    steps: int


def oldest_removals(connection: Connection, limit: int) -> list[Removal]:
    """The first deletions that are not complete."""
    rows = connection.execute(_OLDEST, {"most": limit})
    return [
        Removal(
            _decoder.decode(row.root),
            ChangeScope(row.course_id, row.session_id),
            Origin(row.actor, row.reason, row.request_id),
            row.since,
        )
        for row in rows
    ]


def removal_progress(connection: Connection) -> RemovalProgress | None:
    """How far the oldest removal has come; None without one."""
    row = connection.execute(_OLDEST, {"most": 1}).one_or_none()
    return None if row is None else RemovalProgress(row.root, row.steps)


def pending_roots(connection: Connection, roots: Iterable[Root]) -> set[Root]:
    """The roots whose removal is not complete."""
    found = select_by_key(connection, removals, [[_text(root)] for root in roots])
    return {_decoder.decode(row.root) for row in found}


def scope_of_removal(connection: Connection, root: Root) -> ChangeScope | None:
    """The scope of a record whose removal is not complete; None without one."""
    found = select_by_key(connection, removals, [[_text(root)]])
    return ChangeScope(found[0].course_id, found[0].session_id) if found else None


def is_removing_from(connection: Connection, subject: Subject) -> bool:
    """Whether a large deletion still has to remove what is shared with a subject."""
    found = select(removals.c.root).where(json_names(removals.c.root, subject))
    return connection.execute(found.limit(1)).first() is not None


def being_removed(root: Root, key: Key) -> RemovalPendingError:
    """The error for a record that cannot be written before a removal is complete."""
    message = f"{root} is being removed; try again"
    return RemovalPendingError(message, retry_after_s=_RETRY_AFTER_S, key=str(key))


def store_removals(connection: Connection, added: Iterable[Removal]) -> None:
    """Store removals that have begun."""
    rows = (
        {
            "root": _text(removal.root),
            "since": removal.since,
            "steps": 0,
            **msgspec.structs.asdict(removal.scope),
            **msgspec.structs.asdict(removal.origin),
        }
        for removal in added
    )
    insert_rows(connection, removals, rows)


def store_progress(connection: Connection, done: Iterable[Root], begun: Root | None = None) -> None:
    """Forget the removals that are complete, and count a step of the one that is not."""
    delete_by_key(connection, removals, [[_text(root)] for root in done])
    if begun is not None:
        connection.execute(_STEP, {"of_root": _text(begun)})


def _text(root: Root) -> str:
    return _encoder.encode(root).decode()
