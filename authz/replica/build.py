"""Makes a replica from a dump of the source of truth, in the order of its keys and with full pages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from pathlib import Path

import lmdb

from authz.domain.entities import Course, Entity, EntityKind, Membership, Resource, Session, Share
from authz.domain.ports import Dump, Order
from authz.replica.environment import Environment, Versions
from authz.replica.layout import (
    course_key,
    course_record,
    grant_record,
    join_grants,
    ref_key,
    resource_record,
    scope_key,
    session_key,
    session_record,
    share_record,
    subject_key,
)

_CHUNK = 100_000
"""Rows a transaction: what LMDB keeps in memory until it commits."""

Pair = tuple[bytes, bytes]


def build_replica(folder: Path, dump: Dump, *, max_bytes: int) -> None:
    """Fill an empty folder with what a dump holds. Until the end, the file says that it is unfinished."""
    environment = Environment(folder, max_bytes=max_bytes)
    try:
        for database, pairs in _parts(environment, dump):
            _fill(environment, database, pairs)
        with environment.lmdb.begin(write=True) as transaction:
            versions = Versions(dump.revision, dump.committed_at, dump.revision, dump.revision)
            environment.set_versions(transaction, versions)
            environment.set_database_id(transaction, dump.database_id)
        environment.lmdb.sync(True)
    finally:
        environment.lmdb.close()


def _parts(environment: Environment, dump: Dump) -> Iterator[tuple[lmdb._Database, Iterator[Pair]]]:
    def of(kind: EntityKind, order: Order, pair: Callable[..., Pair | None]) -> Iterator[Pair]:
        found = (pair(entity) for entity in dump.entities(kind, order))
        return (each for each in found if each is not None)

    env = environment
    yield env.scopes, of(EntityKind.COURSE, Order.KEY, _course)
    yield env.scopes, of(EntityKind.SESSION, Order.KEY, _session)
    yield env.sessions_in, of(EntityKind.SESSION, Order.SCOPE, _session_in)
    yield env.members, _grants(dump.entities(EntityKind.MEMBERSHIP, Order.SUBJECT))
    yield env.members_in, _unique(of(EntityKind.MEMBERSHIP, Order.KEY, _member_in))
    yield env.resources, of(EntityKind.RESOURCE, Order.KEY, _resource)
    yield env.resources_in, of(EntityKind.RESOURCE, Order.SCOPE, _resource_in)
    yield env.resources_of, of(EntityKind.RESOURCE, Order.SUBJECT, _resource_of)
    yield env.shares, of(EntityKind.SHARE, Order.KEY, _share)
    yield env.shares_with, of(EntityKind.SHARE, Order.SUBJECT, _share_with)


def _fill(environment: Environment, database: lmdb._Database, pairs: Iterator[Pair]) -> None:
    last = b""
    more = True
    while more:
        more = False
        with environment.lmdb.begin(write=True) as transaction:
            put = transaction.put
            for count, (key, value) in enumerate(pairs, 1):
                # Packed ids do not sort where their text does: those few are put in their place.
                if key > last:
                    put(key, value, append=True, db=database)
                    last = key
                else:
                    put(key, value, db=database)
                if count == _CHUNK:
                    more = True
                    break


def _course(course: Course) -> Pair:
    return course_key(course.id), course_record(course)


def _session(session: Session) -> Pair:
    return session_key(session.id), session_record(session)


def _session_in(session: Session) -> Pair | None:
    if session.course_id is None:
        return None
    return course_key(session.course_id) + session_key(session.id), b""


def _grants(memberships: Iterable[Entity]) -> Iterator[Pair]:
    """By subject and scope: what a subject holds in one scope comes in a row."""

    def place(membership: Membership) -> bytes:
        return subject_key(membership.subject) + scope_key(membership.scope)

    found = (entity for entity in memberships if isinstance(entity, Membership))
    for key, held in groupby(found, place):
        yield key, join_grants({membership.role: grant_record(membership) for membership in held})


def _member_in(membership: Membership) -> Pair:
    return scope_key(membership.scope) + subject_key(membership.subject), b""


def _unique(pairs: Iterable[Pair]) -> Iterator[Pair]:
    """Without repeats in a row: several roles are one member."""
    for key, _ in groupby(pairs, lambda pair: pair[0]):
        yield key, b""


def _resource(resource: Resource) -> Pair:
    return ref_key(resource.key), resource_record(resource)


def _resource_in(resource: Resource) -> Pair:
    return scope_key(resource.scope) + ref_key(resource.key), b""


def _resource_of(resource: Resource) -> Pair | None:
    if resource.owner is None:
        return None
    return subject_key(resource.owner) + ref_key(resource.key), b""


def _share(share: Share) -> Pair:
    return ref_key(share.resource) + subject_key(share.subject), share_record(share.level)


def _share_with(share: Share) -> Pair:
    return subject_key(share.subject) + ref_key(share.resource), b""
