"""Erases the records of a subject: as ordinary changes, which replicas and watches follow."""

from __future__ import annotations

from collections import Counter

import msgspec

from authz.domain.mentions import OWN_RECORDS
from authz.store.log.reader import raise_resumable_from, read_state
from authz.store.privacy.erase_history import erase_rest
from authz.store.privacy.erasure_steps import Phase, Step, advance_step
from authz.store.privacy.traces import Traces, rename_in_texts
from authz.store.removals import is_removing_from
from authz.store.rows import ENTITY_ROWS
from authz.store.write import Transaction

_DELETED = [each for each in reversed(OWN_RECORDS) if each != ("resource", "owner")]
"""What an erasure deletes; resources it gives away."""


def erase_records(transaction: Transaction, step: Step, traces: Traces | None) -> None:
    """Delete or give away a part of the records, under one revision; if none is left, rename in a part of the
    texts; if none of these is left, go to `WAIT`. `traces` is None if the texts were not searched."""
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
    if not +done and traces is not None:
        done = rename_in_texts(transaction, step, traces)
    if removed := +done:
        advance_step(connection, step, done=removed)
    elif traces is not None and not is_removing_from(connection, subject):
        advance_step(connection, step, phase=Phase.WAIT, position=transaction.head.revision)


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
