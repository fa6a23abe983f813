"""Repeats the erasures that were made after a backup in the restored database."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from sqlalchemy import Connection, Text, select, update

from authz.domain.entities import Erasure, ErasureStatus
from authz.domain.erasures import subject_mac
from authz.domain.ids import Subject, SubjectType, parse_subject
from authz.domain.mentions import subjects_in_texts
from authz.domain.origin import Origin
from authz.store import tables
from authz.store.database.engine import stream
from authz.store.log.reader import read_token_key
from authz.store.privacy.erased import ERASURES
from authz.store.privacy.erasure_steps import Phase, insert_step
from authz.store.privacy.holds import hold_on, release_kept, restriction_of
from authz.store.tables import has_subject
from authz.store.write import Transaction

_ORIGIN = Origin("authz restore")
_IN_JSON = re.compile(r'"type":"(user|service)","id":"([^"]+)"')
_TYPES = frozenset(SubjectType)
_STEPS = tables.erasure_steps
_NOBODY = {"new_owner_type": None, "new_owner_id": None}
_LEAF_TABLES = (tables.leaves, tables.decision_leaves)


def begin_missing(transaction: Transaction, erasures: Iterable[Erasure]) -> None:
    """Begin every erasure that the database lacks. If it does not name the subject, only record the erasure.

    Leaves the resources of the subject without an owner, and those that it was to get from somebody whose
    erasure the backup has.
    """
    connection = transaction.connection
    known = {(row.pseudonym_type, row.pseudonym_id) for row in connection.execute(select(ERASURES))}
    missing = [each for each in erasures if (each.pseudonym.type.value, each.pseudonym.id) not in known]
    if not missing:
        return
    found = _subjects_by_mac(connection, {each.mac for each in missing})
    for subject in found.values():
        release_kept(connection, subject)
        connection.execute(update(_STEPS).where(has_subject(_STEPS, "new_owner", subject)).values(_NOBODY))
    records = [
        msgspec.structs.replace(
            each, status=ErasureStatus.ERASING if each.mac in found else ErasureStatus.COMPLETE
        )
        for each in missing
    ]
    held = [hold for each in found.values() if (hold := hold_on(connection, each))]
    restricted = [one.restriction for each in found.values() if (one := restriction_of(connection, each))]
    with transaction.revision(_ORIGIN) as batch:
        batch.delete_found([*held, *restricted])
        batch.rewrite(records)
    for each in missing:
        done: dict[str, Any] = {}
        if each.mac not in found:
            done = {"phase": Phase.DONE.value, "erased_at": transaction.head.revision}
            done |= {"finished_at": transaction.now}
        insert_step(connection, each.pseudonym, found.get(each.mac), _ORIGIN, **done)


def _subjects_by_mac(connection: Connection, wanted: set[str]) -> dict[str, Subject]:
    """The subjects with these HMACs, of all that the database names."""
    key = read_token_key(connection)
    subjects = {*_subjects(connection)}
    return {mac: each for each in subjects if (mac := subject_mac(key, each)) in wanted}


def _subjects(connection: Connection) -> Iterator[Subject]:
    """Every subject that the database names, also several times."""
    for table in tables.metadata.sorted_tables:
        texts = [each for each in table.c if isinstance(each.type, Text)]
        if texts and table not in _LEAF_TABLES:
            for row in stream(connection, select(*texts)):
                yield from _in_row(row._asdict())


def _in_row(row: dict[str, str | None]) -> Iterator[Subject]:
    for name, kind in row.items():
        if kind in _TYPES and (id_ := row.get(f"{name.removesuffix('_type')}_id")):
            yield Subject(SubjectType(kind), id_)
    text = "\n".join(filter(None, row.values()))
    for kind, id_ in _IN_JSON.findall(text):
        yield parse_subject(f"{kind}:{id_}")
    yield from subjects_in_texts([text])
