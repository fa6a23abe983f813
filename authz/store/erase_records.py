"""Erases the records of a subject: as ordinary changes, which replicas and watches follow."""

from __future__ import annotations

from collections import Counter
from typing import Any

import msgspec
from sqlalchemy import Connection, or_, select

from authz.domain.entities import Versioned
from authz.domain.ids import Subject
from authz.domain.mentions import mentions
from authz.store.batch import Batch
from authz.store.erase_history import erase_rest, without_subject
from authz.store.erasure_steps import Phase, Step, advance_step, record_of
from authz.store.log_reader import raise_resumable_from, read_state
from authz.store.log_writer import Origin
from authz.store.removals import is_removing_from
from authz.store.rows import ENTITY_ROWS
from authz.store.tables import has_subject
from authz.store.write import Transaction

_DELETED = ("access_token", "share", "membership", "account")
_RESOURCES, _VERSIONS = ENTITY_ROWS["resource"], ENTITY_ROWS["policy_version"]


def erase_records(transaction: Transaction, step: Step, at_once: int) -> None:
    """Delete or give away a part of the records, under one revision; if nothing is left, go on to `WAIT`."""
    connection, subject = transaction.connection, step.subject
    assert subject is not None  # noqa: S101  it goes with the history
    removed: Counter[str] = Counter()

    def plan(batch: Batch) -> None:
        removed.update(_delete_part(connection, batch, subject, at_once))
        left = at_once - removed.total()
        removed.update(_give_away_part(connection, batch, subject, step.owner, left))
        left = at_once - removed.total()
        removed.update(_rename_authors(connection, batch, subject, step.pseudonym, left))

    reason = record_of(connection, step.pseudonym).reason
    head = transaction.append(Origin(step.origin.actor, reason, step.origin.request_id), plan)
    if removed:
        advance_step(connection, step, done=removed)
    elif not is_removing_from(connection, subject):
        advance_step(connection, step, phase=Phase.WAIT, position=head.revision)


def begin_history(transaction: Transaction, step: Step, grace_us: int) -> None:
    """Start the rewrite of the history, unless the grace period of log readers has not ended.

    From then on no reader may continue from an earlier revision, because the log has the pseudonym there. A
    large deletion that the subject began goes on with the pseudonym.
    """
    connection, last, subject = transaction.connection, step.position, step.subject
    assert subject is not None  # noqa: S101  it goes with the history
    state = read_state(connection, transaction.database_id, last)
    if state is None or transaction.now - state.committed_at >= grace_us:
        raise_resumable_from(connection, last)
        done = erase_rest(connection, subject, step.pseudonym)
        advance_step(connection, step, phase=Phase.HISTORY, done=done, position=0)


def _delete_part(connection: Connection, batch: Batch, subject: Subject, limit: int) -> Counter[str]:
    removed: Counter[str] = Counter()
    for name in _DELETED:
        theirs = has_subject(ENTITY_ROWS[name].table, "subject", subject)
        found = _some(connection, name, theirs, limit - removed.total())
        batch.delete_found(found)
        removed.update({f"{name} records deleted": len(found)} if found else {})
    return removed


def _give_away_part(
    connection: Connection, batch: Batch, subject: Subject, owner: Subject, limit: int
) -> Counter[str]:
    found = _some(connection, "resource", has_subject(_RESOURCES.table, "owner", subject), limit)
    batch.rewrite([msgspec.structs.replace(each.entity, owner=owner) for each in found])
    return Counter({"resource records given away": len(found)} if found else {})


def _rename_authors(
    connection: Connection, batch: Batch, subject: Subject, pseudonym: Subject, limit: int
) -> Counter[str]:
    """The pseudonym for the subject in who wrote the versions of policies, and why."""
    columns, named = _VERSIONS.table.c, str(subject)
    wanted = or_(*(columns[each].contains(named, autoescape=True) for each in ("author", "reason")))
    found = [
        each.entity
        for each in _some(connection, "policy_version", wanted, limit)
        if mentions(each.entity.author, subject) or mentions(each.entity.reason, subject)
    ]
    renamed = [without_subject(each, subject, pseudonym) for each in found]
    # The texts name the subject, which the log must not do again.
    batch.rewrite(renamed, logs_before=False)
    return Counter({"policy versions renamed in": len(found)} if found else {})


def _some(connection: Connection, name: str, wanted: Any, limit: int) -> list[Versioned[Any]]:
    if limit <= 0:
        return []
    stored = ENTITY_ROWS[name]
    return [*stored.versioned(connection.execute(select(stored.table).where(wanted).limit(limit)).all())]
