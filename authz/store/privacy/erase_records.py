"""Erases the records of a subject: as ordinary changes, which replicas and watches follow."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import msgspec
from sqlalchemy import Connection, select

from authz.domain.entities import KINDS, Entity
from authz.domain.ids import Subject
from authz.domain.mentions import OWN_RECORDS, mentions
from authz.store.database.engine import stream
from authz.store.log.reader import raise_resumable_from, read_state
from authz.store.privacy.erase_history import erase_rest, without_subject
from authz.store.privacy.erasure_steps import Phase, Step, advance_step
from authz.store.privacy.personal_texts import RECORD_TEXTS
from authz.store.removals import is_removing_from
from authz.store.rows import ENTITY_ROWS
from authz.store.tables import may_mention
from authz.store.write import Transaction

_DELETED = [each for each in reversed(OWN_RECORDS) if each != ("resource", "owner")]
"""What an erasure deletes; resources it gives away."""


def erase_records(transaction: Transaction, step: Step) -> None:
    """Delete or give away a part of the records, under one revision; if none is left, go to `WAIT`."""
    connection, subject, at_once = transaction.connection, step.subject, transaction.contents_at_once
    done: Counter[str] = Counter()
    with transaction.revision(step.origin) as batch:
        for name, field in _DELETED:
            found = ENTITY_ROWS[name].about(connection, field, subject, at_once - done.total())
            batch.delete_found(found)
            done[f"{name} records deleted"] = len(found)
        owned = ENTITY_ROWS["resource"].about(connection, "owner", subject, at_once - done.total())
        batch.rewrite([msgspec.structs.replace(each.entity, owner=step.owner) for each in owned])
        became = "left without an owner" if step.new_owner is None else "given away"
        done[f"resource records {became}"] = len(owned)
    if removed := +done or rename_in_texts(transaction, step):
        advance_step(connection, step, done=removed)
    elif not is_removing_from(connection, subject):
        advance_step(connection, step, phase=Phase.WAIT, position=transaction.head.revision)


def rename_in_texts(transaction: Transaction, step: Step) -> Counter[str]:
    """Put the pseudonym into a part of the records whose texts name the subject, under one revision; return
    how many of each kind."""
    done: Counter[str] = Counter()
    with transaction.revision(step.origin) as batch:
        for name in RECORD_TEXTS:
            limit = transaction.contents_at_once - done.total()
            records = _naming(transaction.connection, name, step.subject, limit)
            batch.rewrite([without_subject(each, step.subject, step.pseudonym) for each in records])
            done[f"{KINDS[name].plural.replace('_', ' ')} renamed in"] = len(records)
    return +done


def begin_history(transaction: Transaction, step: Step, *, grace_us: int, waited_us: int) -> None:
    """Start the rewrite of the history, if the grace period of log readers has ended.

    It has by the time of the log, or when this process has waited for it: after a commit of a server whose
    clock is ahead, the time of the log stands still. `waited_us` is how long this process has waited.

    From then on no reader may continue from an earlier revision, because the log has the pseudonym there. A
    large deletion that the subject began goes on with the pseudonym.
    """
    connection, last = transaction.connection, step.position
    state = read_state(connection, transaction.head.database_id, last)
    if state is None or max(transaction.now - state.committed_at, waited_us) >= grace_us:
        raise_resumable_from(connection, last)
        done = erase_rest(connection, step.subject, step.pseudonym)
        advance_step(connection, step, phase=Phase.HISTORY, done=done, position=0)


def _naming(connection: Connection, name: str, subject: Subject, limit: int) -> list[Entity]:
    """Up to `limit` records of a kind whose texts name the subject."""
    stored, texts = ENTITY_ROWS[name], RECORD_TEXTS[name]
    wanted = select(stored.table).where(may_mention([stored.table.c[text] for text in texts], subject))
    with stream(connection, wanted, rows_at_once=1) as rows:  # a version may be large
        named = (row for row in rows if any(mentions(getattr(row, text), subject) for text in texts))
        return [*stored.entities([*islice(named, limit)])]
