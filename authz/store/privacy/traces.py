"""What names a subject besides the change log: searched without the lock of all writes, because that reads
whole tables, and under the lock only in what was written since."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from typing import Any, TypeAlias

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, Select, func, or_, select

from authz.domain.entities import KINDS
from authz.domain.ids import Subject
from authz.domain.mentions import OWN_RECORDS, mentions, mentions_id
from authz.domain.tokens import ConsistencyToken
from authz.store import tables
from authz.store.bulk import delete_by_key, select_by_key, upsert_rows
from authz.store.database.engine import stream
from authz.store.log.decision_leaves import lock_tree
from authz.store.log.mutation_json import decode_mutation
from authz.store.privacy.erase_history import end_of_part, without_subject
from authz.store.privacy.erasure_steps import Phase, Step
from authz.store.privacy.personal_texts import RECORD_TEXTS
from authz.store.rows import ENTITY_ROWS
from authz.store.tables import may_mention
from authz.store.write import Transaction

_KEYS, _DECISIONS, _LEAVES = tables.idempotency_keys, tables.decisions, tables.decision_leaves
_NAMES = ("subject", "person", "caller")
_VERSION = "policy_version"
_VERSIONS = ENTITY_ROWS[_VERSION].table
_Record: TypeAlias = tuple[str, Sequence[Any]]
"""A kind of record, and the values of its key."""
_VersionKey: TypeAlias = tuple[str, str, int]
"""The kind and the id of the scope of a version, and its number."""


class Traces(msgspec.Struct, frozen=True, kw_only=True):
    """Where a subject is named at a state, as far as one step erases that: primary keys of decisions and of
    idempotency keys, and records. `kept`, only if there are none: the versions of policies whose files name
    the subject."""

    head: ConsistencyToken
    decision_leaves: int = 0
    decisions: Sequence[Sequence[Any]] = ()
    keys: Sequence[Sequence[Any]] = ()
    records: Sequence[_Record] = ()
    kept: Sequence[_VersionKey] = ()


class PreparedStep(msgspec.Struct, frozen=True, kw_only=True):
    """The next step of an erasure at a state, with the traces that it erases, if these were searched, and the
    steps whose files are rewritten."""

    step: Step | None
    head: ConsistencyToken
    traces: Traces | None = None
    covered: Sequence[Step] = ()


def find_traces(connection: Connection, step: Step, head: ConsistencyToken, at_once: int) -> Traces | None:
    """Search for up to `at_once` of one kind; None while the step has something else to do. `head` is of the
    same snapshot."""
    subject, nothing = step.subject, Traces(head=head)
    if step.phase is Phase.RECORDS and not _has_records(connection, subject):
        return msgspec.structs.replace(nothing, records=_records_naming(connection, subject, at_once))
    if step.phase is not Phase.HISTORY or end_of_part(connection, step.position) is not None:
        return None
    leaves = connection.execute(select(tables.decision_tree.c.size)).scalar_one()
    nothing = msgspec.structs.replace(nothing, decision_leaves=leaves)
    # By the index of subjects first: somebody may be the subject of many.
    for names in (_NAMES[:1], _NAMES[1:]):
        if decisions := connection.execute(_decisions_naming(subject, names).limit(at_once)).all():
            return msgspec.structs.replace(nothing, decisions=[[*row] for row in decisions])
    if keys := [*islice(_keys_naming(connection, subject), at_once)]:
        return msgspec.structs.replace(nothing, keys=keys)
    if records := _records_naming(connection, subject, at_once):
        return msgspec.structs.replace(nothing, records=records)
    return msgspec.structs.replace(nothing, kept=[*_versions_naming(connection, subject)])


def erase_traces(transaction: Transaction, step: Step, traces: Traces) -> Counter[str]:
    """Erase what was found, and a part of what was written since; return how much of each. The change log is
    searched before, in the same transaction."""
    return (
        _erase_decisions(transaction, step, traces)
        or _erase_keys(transaction, step, traces)
        or rename_in_texts(transaction, step, traces)
    )


def rename_in_texts(transaction: Transaction, step: Step, traces: Traces) -> Counter[str]:
    """Put the pseudonym into the records that were found, under one revision; return how many of each kind.
    Those that were written since are in the last part of the change log, which is searched under the lock."""
    done: Counter[str] = Counter()
    with transaction.revision(step.origin) as batch:
        for name, texts in RECORD_TEXTS.items():
            stored, keys = ENTITY_ROWS[name], [key for kind, key in traces.records if kind == name]
            rows = select_by_key(transaction.connection, stored.table, keys)
            named = [row for row in rows if any(mentions(getattr(row, text), step.subject) for text in texts)]
            records = [without_subject(each, step.subject, step.pseudonym) for each in stored.entities(named)]
            batch.rewrite(records)
            done[f"{KINDS[name].plural.replace('_', ' ')} renamed in"] = len(records)
    return +done


def kept_mentions(connection: Connection, subject: Subject, traces: Traces) -> list[str]:
    """What still names the subject, and why: files of versions of policies, which prove what decided when."""
    changes, stored = tables.changes.c, ENTITY_ROWS[_VERSION]
    later = select(changes.mutation).where(changes.revision > traces.head.revision, changes.kind == _VERSION)
    keys = [stored.key_values(decode_mutation(text).key) for text in connection.scalars(later)]
    rows = select_by_key(connection, _VERSIONS, keys)
    named = {_version_of(row) for row in rows if mentions(row.files, subject)}
    return [
        f"version {number} of the policy of {kind}{id_ and ':' + id_} names the subject in its files, which"
        " prove what decided when"
        for kind, id_, number in sorted(named.union(traces.kept))
    ]


def _erase_decisions(transaction: Transaction, step: Step, traces: Traces) -> Counter[str]:
    connection, subject, leaves = transaction.connection, str(step.subject), traces.decision_leaves
    lock_tree(connection)  # an entry that is being appended may name the subject
    first_at = connection.scalar(select(func.min(_LEAVES.c.first_at)).where(_LEAVES.c.number > leaves))
    found = [*traces.decisions]
    if first_at is not None:
        since = _decisions_naming(step.subject, _NAMES)
        since = since.where(_DECISIONS.c.at >= first_at, _DECISIONS.c.leaf > leaves)
        found += ([*row] for row in connection.execute(since.limit(transaction.contents_at_once)))
    rewritten = []
    for row in select_by_key(connection, _DECISIONS, found):
        if names := [name for name in _NAMES if getattr(row, name) == subject]:
            values = dict.fromkeys(names, str(step.pseudonym)) | {"request_id": ""}
            rewritten.append([*(dict(row._mapping) | values).values()])
    upsert_rows(connection, _DECISIONS, rewritten)
    return +Counter({"decisions rewritten": len(rewritten)})


def _erase_keys(transaction: Transaction, step: Step, traces: Traces) -> Counter[str]:
    connection, head = transaction.connection, traces.head
    since = (_KEYS.c.created_at >= head.committed_at, _KEYS.c.revision >= head.revision)
    later = islice(_keys_naming(connection, step.subject, *since), transaction.contents_at_once)
    found = [*{tuple(key) for key in (*traces.keys, *later)}]
    count = len(select_by_key(connection, _KEYS, found))
    delete_by_key(connection, _KEYS, found)
    return +Counter({"idempotency keys deleted": count})


def _has_records(connection: Connection, subject: Subject) -> bool:
    return any(ENTITY_ROWS[name].about(connection, field, subject, 1) for name, field in OWN_RECORDS)


def _records_naming(connection: Connection, subject: Subject, at_once: int) -> list[_Record]:
    """Up to `at_once` records whose texts name a subject."""
    found = chain.from_iterable(_named_in(connection, name, subject) for name in RECORD_TEXTS)
    return [*islice(found, at_once)]


def _named_in(connection: Connection, name: str, subject: Subject) -> Iterator[_Record]:
    table = ENTITY_ROWS[name].table
    key, texts = [*table.primary_key], [table.c[text] for text in RECORD_TEXTS[name]]
    with stream(connection, select(*key, *texts).where(may_mention(texts, subject))) as rows:
        for row in rows:
            if any(mentions(text, subject) for text in row[len(key) :]):
                yield name, row[: len(key)]


def _decisions_naming(subject: Subject, names: Sequence[str]) -> Select[Any]:
    is_named = or_(*(_DECISIONS.c[name] == str(subject) for name in names))
    return select(_DECISIONS.c.at, _DECISIONS.c.decision_id).where(is_named)


def _keys_naming(
    connection: Connection, subject: Subject, *conditions: ColumnElement[bool]
) -> Iterator[Sequence[str]]:
    may_name = or_(*(_KEYS.c[name].contains(subject.id, autoescape=True) for name in ("actor", "key")))
    wanted = select(_KEYS.c.actor, _KEYS.c.key).where(may_name, *conditions)
    with stream(connection, wanted) as rows:
        for row in rows:
            if mentions(row.actor, subject) or mentions_id(row.key, subject):
                yield row.actor, row.key


def _versions_naming(connection: Connection, subject: Subject) -> Iterator[_VersionKey]:
    wanted = select(_VERSIONS).where(may_mention([_VERSIONS.c.files], subject))
    with stream(connection, wanted, rows_at_once=1) as rows:  # a version may be large
        yield from (_version_of(row) for row in rows if mentions(row.files, subject))


def _version_of(row: Row[Any]) -> _VersionKey:
    return row.scope_kind, row.scope_id, row.number
