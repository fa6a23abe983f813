"""All that a replica holds, read back: to hold it against the source of truth, row by row."""

from __future__ import annotations

from collections.abc import Iterator

import lmdb

from authz.domain.effective_roles import Grant
from authz.domain.entities import Course, Session
from authz.domain.ids import Scope, ScopeKind
from authz.replica.environment import Environment
from authz.replica.kinds import CODECS
from authz.replica.layout import (
    is_shared,
    read_course,
    read_grants,
    read_ref,
    read_resource,
    read_scope,
    read_session,
    read_share,
    read_subject,
    scope_key,
)

Row = tuple[str, object, object]
"""The kind of row, what it is found by, and what is found."""


OTHERS = sorted(CODECS.keys() - {"course", "session", "membership", "resource", "share"})
"""The kinds that have the default codec."""


def all_rows(environment: Environment) -> Iterator[Row]:
    """Every row, those that are for looking up the other way among them, in the order of the keys."""
    env = environment
    with env.lmdb.begin() as transaction:
        for key, raw in _pairs(transaction, env.scopes):
            yield "scope", *_scope_row(key, raw)
        for key, raw in _pairs(transaction, env.members):
            subject, end = read_subject(key, 0)
            scope, _ = read_scope(key, end)
            yield "grants", (subject, scope), _grants(scope, raw)
        for key, raw in _pairs(transaction, env.resources):
            ref, _ = read_ref(key, 0)
            yield "resource", ref, read_resource(ref, raw)
            if is_shared(raw):
                yield "shared", ref, None
        for key, raw in _pairs(transaction, env.shares):
            ref, end = read_ref(key, 0)
            yield "share", (ref, read_subject(key, end)[0]), read_share(raw)
        for name in OTHERS:
            codec = CODECS[name]
            for key, raw in _pairs(transaction, env.databases[codec.database]):
                entity = codec.read(key, raw)
                yield name, entity.key, entity
        yield from _indexes(env, transaction)


def _indexes(env: Environment, transaction: lmdb.Transaction) -> Iterator[Row]:
    for key, _ in _pairs(transaction, env.members_in):
        scope, end = read_scope(key, 0)
        yield "member in", scope, read_subject(key, end)[0]
    for key, _ in _pairs(transaction, env.resources_in):
        scope, end = read_scope(key, 0)
        yield "resource in", scope, read_ref(key, end)[0]
    for key, _ in _pairs(transaction, env.sessions_in):
        scope, end = read_scope(key, 0)
        yield "session in", scope, read_scope(key, end)[0]
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


def _scope_row(key: bytes, raw: bytes) -> tuple[Scope, Course | Session]:
    scope, _ = read_scope(key, 0)
    if scope.kind is ScopeKind.COURSE:
        return scope, read_course(scope.id, raw)
    return scope, read_session(scope.id, raw)


def _grants(scope: Scope, raw: bytes) -> tuple[Grant, ...]:
    return read_grants(scope_key(scope)[:1] + raw)
