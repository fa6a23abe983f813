"""Moves all records of one subject to another id, in one revision, and knows the other ids of a subject."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from sqlalchemy import Connection, insert, or_, select, update

from authz.domain.entities import (
    AccessToken,
    Account,
    AccountKey,
    Entity,
    Key,
    Membership,
    Versioned,
    kind_of,
)
from authz.domain.erasures import RenameRequest
from authz.domain.errors import (
    FailedPreconditionError,
    PermissionDeniedError,
    RemovalPendingError,
    malformed,
    precondition_failed,
)
from authz.domain.ids import PLATFORM, Subject
from authz.domain.instants import Instant
from authz.domain.mentions import OWN_RECORDS, subjects_in_texts, with_subjects
from authz.domain.tokens import ConsistencyToken
from authz.domain.vocabulary import GRANT_ROLES
from authz.store import tables
from authz.store.batch import Batch
from authz.store.bulk import delete_by_key
from authz.store.privacy.erased import ERASURES, require_not_erased
from authz.store.privacy.erasure_steps import require_not_new_owner
from authz.store.privacy.holds import require_no_hold, restriction_of
from authz.store.privacy.personal_texts import all_texts
from authz.store.removals import is_removing_from
from authz.store.rows import ENTITY_ROWS
from authz.store.sharing import lapsed_shares
from authz.store.write import Transaction

MAX_RECORDS = 20_000
"""Of one subject. A revision with as many is written, and applied by a replica, in about a second."""
_RETRY_AFTER_S = 0.1
_TEXTS_AT_ONCE = 10_000
_RENAMES = tables.renames


def rename(
    transaction: Transaction, request: RenameRequest, max_records: int
) -> tuple[ConsistencyToken, dict[str, int]]:
    """Move every record of a subject to another; return the state, and how many of each kind.

    The new records are written before the old ones are deleted, in one revision. Raises
    `FailedPreconditionError`, and changes nothing, if the other has records and the request does not merge,
    if both subjects have a record for the same thing and the two differ, if there are more than
    `max_records`, if there is none, if the subject is held or is to get the resources of somebody who is
    being erased, or if one of the two was erased; `RemovalPendingError` while shares that ended are being
    removed; `PermissionDeniedError` for roles on the platform and access tokens, unless the request moves
    them.
    """
    connection, old, new = transaction.connection, request.subject, request.to
    _require_two(connection, old, new)
    found = _records_of(connection, old, max_records)
    if not found:
        raise _refused(old, f"{old} has no record, so there is nothing to rename")
    if not request.moves_roles:
        _require_no_roles(old, found)
    of_new = _one_record_of(connection, new)
    if of_new is not None and not request.merge:
        raise _is_taken(old, new, of_new)
    with transaction.revision(request.origin) as batch:
        now = transaction.log.clock_time
        lapsed = [each for whose in (old, new) for each in lapsed_shares(connection, whose, now)]
        over: set[Key] = {each.entity.key for each in lapsed}
        moving = [each for each in found if each.entity.key not in over]
        if of_new is not None:
            _require_same_account(batch, moving, old, new)
        renamed = [*_renamed(batch, moving, old, new, over)]
        batch.rewrite(renamed)
        kept = {each.key for each in renamed}  # of a resource, only the owner changes
        batch.delete_found([each for each in (*moving, *lapsed) if each.entity.key not in kept])
    state, renamed_at = transaction.head, transaction.now
    row = {"revision": state.revision, "old": str(old), "new": str(new), "renamed_at": renamed_at}
    connection.execute(insert(_RENAMES), row)
    return state, Counter(kind_of(each.entity).name for each in moving)


def other_ids(connection: Connection, subject: Subject) -> dict[str, Instant]:
    """The ids that a subject was renamed from or to, each with the last time; without those of the erased."""
    named = str(subject)
    wanted = select(_RENAMES).where(or_(_RENAMES.c.old == named, _RENAMES.c.new == named))
    rows = connection.execute(wanted.order_by(_RENAMES.c.revision))
    found = {row.new if row.old == named else row.old: row.renamed_at for row in rows}
    pseudonym = ERASURES.c.pseudonym_type + ":" + ERASURES.c.pseudonym_id
    erased = {*connection.scalars(select(pseudonym).where(pseudonym.in_(found)))}
    return {other: at for other, at in found.items() if other not in erased}


def erase_renames(connection: Connection, subject: Subject, pseudonym: Subject) -> None:
    """Put the pseudonym of a subject in its place."""
    for column in (_RENAMES.c.old, _RENAMES.c.new):
        same = column == str(subject)
        connection.execute(update(_RENAMES).where(same).values({column: str(pseudonym)}))


def forgettable(connection: Connection, through: int) -> list[int]:
    """The revisions of the renames up to a revision, whose changes are purged, but for those whose old id a
    decision that is kept, or a text, may still have. Reads all texts."""
    decided = tables.decisions.c.at
    is_decided = select(decided).where(decided <= _RENAMES.c.renamed_at).exists()
    found = connection.execute(select(_RENAMES).where(_RENAMES.c.revision <= through, ~is_decided)).all()
    old, named = {row.old for row in found}, set[str]()
    texts = all_texts(connection) if found else iter(())
    while some := [*itertools.islice(texts, _TEXTS_AT_ONCE)]:
        named |= old.intersection(map(str, subjects_in_texts(some)))
    return [row.revision for row in found if row.old not in named]


def forget(connection: Connection, revisions: Iterable[int]) -> None:
    """Forget the renames of some revisions."""
    delete_by_key(connection, _RENAMES, [[each] for each in revisions])


def _records_of(connection: Connection, subject: Subject, limit: int) -> list[Versioned[Any]]:
    found: list[Versioned[Any]] = []
    for name, field in OWN_RECORDS:
        found += ENTITY_ROWS[name].about(connection, field, subject, limit + 1 - len(found))
        if len(found) > limit:
            raise _refused(
                subject,
                f"{subject} has more than {limit} records, too many for one revision; first give what it owns"
                " to the other subject in writes of up to 1,000",
            )
    return found


def _one_record_of(connection: Connection, subject: Subject) -> Versioned[Any] | None:
    records = (ENTITY_ROWS[name].about(connection, field, subject, 1) for name, field in OWN_RECORDS)
    return next(itertools.chain.from_iterable(records), None)


def _require_two(connection: Connection, old: Subject, new: Subject) -> None:
    if old == new or old.type is not new.type:
        raise malformed("to", f"is {new}; name another subject of the type `{old.type.value}`")
    for each in (old, new):
        require_not_erased(connection, each)
        _require_nothing_is_removed(connection, each)
    require_not_new_owner(connection, old)
    require_no_hold(connection, old, "its id stays")
    if (restricted := restriction_of(connection, new)) is not None:
        problem = f"{new} is restricted, and {old} is not: {restricted.reason}; lift that restriction first"
        raise _refused(old, problem)


def _require_nothing_is_removed(connection: Connection, subject: Subject) -> None:
    """A share that ended would move out of its removal, or be opened again by a membership that moves in."""
    if is_removing_from(connection, subject):
        raise RemovalPendingError(
            f"what was shared with {subject} in a course that they left is being removed; try again",
            retry_after_s=_RETRY_AFTER_S,
            key=str(subject),
        )


def _require_no_roles(subject: Subject, found: list[Versioned[Any]]) -> None:
    for each in (versioned.entity for versioned in found):
        if isinstance(each, AccessToken) or (isinstance(each, Membership) and each.scope == PLATFORM):
            raise PermissionDeniedError(
                f"{subject} has a role on the platform or an access token, and only a caller with"
                f" `{GRANT_ROLES}` may give these to somebody else; end them first, or have such a caller"
                " rename",
                permission=GRANT_ROLES,
                scope=str(PLATFORM),
            )


def _renamed(
    batch: Batch, found: list[Versioned[Any]], old: Subject, new: Subject, over: set[Key]
) -> Iterator[Entity]:
    """The records as those of the other subject, without those that it has already. Those in `over` end."""
    targets = [with_subjects(each.entity, lambda s: new if s == old else s) for each in found]
    batch.prefetch(each.key for each in targets)
    moving = {each.entity.key for each in found}
    for target in targets:
        there = None if target.key in moving | over else batch.find(target.key)
        if there is None:
            yield target
        elif there.entity != target:
            raise _refused(
                old,
                f"{there.entity.key} differs from that of {old}, and only one can stay; change or delete one"
                " of the two first",
            )


def _require_same_account(batch: Batch, found: list[Versioned[Any]], old: Subject, new: Subject) -> None:
    """A suspension neither ends nor begins by a rename. Who has no account record is not suspended."""
    there = batch.find(AccountKey(new))
    expected = Account(new) if there is None else there.entity
    account = next((each.entity for each in found if isinstance(each.entity, Account)), Account(old))
    if msgspec.structs.replace(account, subject=new) != expected:
        raise _refused(
            old, f"the accounts of {old} and {new} differ; suspend or restore one of the two first"
        )


def _is_taken(old: Subject, new: Subject, found: Versioned[Any]) -> FailedPreconditionError:
    """The error for an id that may be mistyped: it would make one account of two people, for good."""
    return _refused(
        old,
        f"{new} has records of its own, such as {found.entity.key}; name an id without records, or make one"
        " account of the two with `merge` (`--merge`), which cannot be undone",
    )


def _refused(subject: Subject, problem: str) -> FailedPreconditionError:
    return precondition_failed(problem, subject=str(subject))
