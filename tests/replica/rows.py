"""All that a replica holds, read back: to hold it against the source of truth, row by row."""

from __future__ import annotations

from collections.abc import Iterator

import lmdb

from authz.domain.effective_roles import MembershipTerms
from authz.domain.ids import Scope
from authz.replica.environment import Environment
from authz.replica.kinds import CODECS, TOMBSTONES_BY_AGE
from authz.replica.layout import read_memberships, read_ref, read_scope, read_subject, scope_key, unpack_id
from authz.replica.resource_records import decode_resource

Row = tuple[str, object, object]
"""The kind of row, what it is found by, and what is found."""


def all_rows(environment: Environment) -> Iterator[Row]:
    """Every row, those that are for looking up the other way among them, in the order of the keys."""
    env = environment
    with env.lmdb.begin() as transaction:
        for key, raw in _pairs(transaction, env.members):
            subject, end = read_subject(key, 0)
            scope, _ = read_scope(key, end)
            yield "memberships", (subject, scope), _memberships(scope, raw)
        for key, raw in _pairs(transaction, env.resources):
            if decode_resource(raw).is_shared:
                yield "shared", read_ref(key, 0)[0], None
        for name in sorted(CODECS.keys() - {"membership"}):
            codec = CODECS[name]
            for key, raw in _pairs(transaction, env.databases[codec.database]):
                entity = codec.read(key, raw)
                yield name, entity.key, entity
        yield from _indexes(env, transaction)


def _indexes(env: Environment, transaction: lmdb.Transaction) -> Iterator[Row]:
    tombstones = [*_pairs(transaction, env.tombstones)]
    by_age = [key for key, _ in _pairs(transaction, env.databases[TOMBSTONES_BY_AGE])]
    assert by_age == sorted(at + key for key, at in tombstones)
    for key, _ in tombstones:
        yield "tombstone", read_ref(key, 0)[0], None
    for key, _ in _pairs(transaction, env.members_in):
        scope, end = read_scope(key, 0)
        yield "member in", scope, read_subject(key, end)[0]
    for key, record in _pairs(transaction, env.resources_in):
        scope, end = read_scope(key, 0)
        assert record == transaction.get(key[end:], b"", env.resources), key
        yield "resource in", scope, read_ref(key, end)[0]
    for key, _ in _pairs(transaction, env.sessions_in):
        course_id, end = unpack_id(key, 0)
        yield "session in", course_id, unpack_id(key, end)[0]
    for key, _ in _pairs(transaction, env.resources_of):
        subject, end = read_subject(key, 0)
        yield "resource of", subject, read_ref(key, end)[0]
    for key, _ in _pairs(transaction, env.shares_with):
        subject, end = read_subject(key, 0)
        yield "share with", subject, read_ref(key, end)[0]


def _pairs(transaction: lmdb.Transaction, database: lmdb._Database) -> Iterator[tuple[bytes, bytes]]:
    with transaction.cursor(database) as cursor:
        for key, value in cursor:
            yield bytes(key), bytes(value)


def _memberships(scope: Scope, raw: bytes) -> tuple[MembershipTerms, ...]:
    return read_memberships(scope_key(scope)[:1] + raw)
