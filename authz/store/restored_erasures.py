"""Repeats the erasures that were made after a backup in the restored database."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import msgspec
from sqlalchemy import Connection, insert, select

from authz.domain.entities import KINDS, Erasure, ErasureStatus
from authz.domain.erasures import subject_mac
from authz.domain.ids import Subject, parse_subject
from authz.domain.kinds.fields import FieldType
from authz.store import tables
from authz.store.erased import ERASURES
from authz.store.erasure_steps import Phase, first_step
from authz.store.log_reader import read_token_key
from authz.store.log_writer import Origin
from authz.store.rows import ENTITY_ROWS
from authz.store.write import Transaction

_CHUNK = 1_000
_ACTOR = "authz restore"
_IN_JSON = re.compile(r'"type":"(user|service)","id":"([^"]+)"')
_IN_TEXT = re.compile(r"\b(user|service):([A-Za-z0-9._~@+=|/:\-]{1,128})")
_TEXTS: tuple[tuple[Any, tuple[str, ...]], ...] = (
    (tables.changes, ("mutation",)),
    (tables.revisions, ("actor", "reason", "request_id")),
    (tables.idempotency_keys, ("actor",)),
    (tables.policy_drafts, ("author", "publication")),
    (tables.decisions, ("subject", "person", "caller")),
    (tables.renames, ("old", "new")),
    (ENTITY_ROWS["policy_version"].table, ("author", "reason")),
)


def begin_missing(transaction: Transaction, erasures: Iterable[Erasure]) -> None:
    """Begin every erasure that the database lacks. If it does not name the subject, only record the erasure.

    Leaves the resources of the subject without an owner.
    """
    connection = transaction.connection
    known = {(row.pseudonym_type, row.pseudonym_id) for row in connection.execute(select(ERASURES))}
    missing = [each for each in erasures if (each.pseudonym.type.value, each.pseudonym.id) not in known]
    if not missing:
        return
    found = _subjects_by_mac(connection, {each.mac for each in missing})
    records = [
        msgspec.structs.replace(
            each, status=ErasureStatus.ERASING if each.mac in found else ErasureStatus.COMPLETE
        )
        for each in missing
    ]
    state = transaction.append(Origin(_ACTOR, "", ""), lambda batch: batch.rewrite(records))
    for each in missing:
        step = first_step(each.pseudonym, found.get(each.mac), actor=_ACTOR)
        if each.mac not in found:
            done = {"phase": Phase.DONE.value, "erased_at": state.revision, "finished_at": transaction.now}
            step |= done
        connection.execute(insert(tables.erasure_steps), step)


def _subjects_by_mac(connection: Connection, wanted: Collection[str]) -> dict[str, Subject]:
    """The subjects with these HMACs, of all that the database names."""
    key, seen, found = read_token_key(connection), set[Subject](), dict[str, Subject]()
    for subject in _subjects(connection):
        if subject in seen:
            continue
        seen.add(subject)
        mac = subject_mac(key, subject)
        if mac in wanted:
            found[mac] = subject
    return found


def _subjects(connection: Connection) -> Iterator[Subject]:
    """Every subject that the database names, also several times."""
    for kind in KINDS.values():
        for field in kind.fields:
            if field.type is FieldType.SUBJECT:
                table = ENTITY_ROWS[kind.name].table
                columns = [table.c[f"{field.name}_{part}"] for part in ("type", "id")]
                for kind_name, id_ in connection.execute(select(*columns).distinct()):
                    if id_ is not None:
                        yield parse_subject(f"{kind_name}:{id_}")
    for table, names in _TEXTS:
        rows = connection.execute(
            select(*(table.c[name] for name in names)), execution_options={"yield_per": _CHUNK}
        )
        for row in rows:
            for text in filter(None, row):
                yield from _in_text(text)


def _in_text(text: str) -> Iterator[Subject]:
    for pattern in (_IN_JSON, _IN_TEXT):
        for kind, id_ in pattern.findall(text):
            # A full stop may end a sentence.
            for each in {id_, id_.rstrip(".") or id_}:
                yield parse_subject(f"{kind}:{each}")
