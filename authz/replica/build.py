"""Makes a replica from a dump of the source of truth, in the order of its keys and with full pages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any

import lmdb

from authz.domain.entities import EntityKind, Membership, SessionKey
from authz.domain.ids import Scope
from authz.domain.ports import Dump, Link
from authz.replica.environment import Environment, UnusableError, Versions, not_ready
from authz.replica.layout import (
    course_key,
    course_record,
    grant_record,
    join_grants,
    read_ref,
    ref_key,
    resource_record,
    scope_key,
    session_key,
    session_record,
    share_record,
    subject_key,
    with_shared,
)

_PAGE = 1_000
"""Rows between two looks at whether to stop."""
_CHUNK = 100_000
"""Rows a transaction: what LMDB keeps in memory until it commits."""

Pair = tuple[bytes, bytes]


def build_replica(
    folder: Path, dump: Dump, *, max_bytes: int, stopped: Callable[[], bool] = lambda: False
) -> None:
    """Fill an empty folder with what a dump holds. Until the end, the file says that it is unfinished.

    Raises `UnavailableError` soon after `stopped` says so.
    """
    environment = Environment(folder, max_bytes=max_bytes)
    try:
        for database, pairs in _parts(environment, dump):
            _fill(environment, database, _until(stopped, pairs))
        _mark_shared(environment)
        with environment.lmdb.begin(write=True) as transaction:
            state = dump.state
            versions = Versions(
                state.revision, state.committed_at, state.nonce, state.revision, state.revision
            )
            environment.set_versions(transaction, versions)
            environment.set_database_id(transaction, state.database_id)
        environment.lmdb.sync(True)
    finally:
        environment.lmdb.close()


def _until(stopped: Callable[[], bool], pairs: Iterable[Pair]) -> Iterator[Pair]:
    left = iter(pairs)
    while page := list(islice(left, _PAGE)):
        if stopped():
            raise not_ready("the server was stopped while it built its replica; start it again")
        yield from page


def _parts(environment: Environment, dump: Dump) -> Iterator[tuple[lmdb._Database, Iterable[Pair]]]:
    env = environment
    yield env.scopes, map(_course, dump.entities(EntityKind.COURSE))
    yield env.scopes, map(_session, dump.entities(EntityKind.SESSION))
    yield env.members, _grants(dump.memberships())
    yield env.resources, map(_resource, dump.entities(EntityKind.RESOURCE))
    yield env.shares, map(_share, dump.entities(EntityKind.SHARE))
    for database, link, held_key in (
        (env.sessions_in, Link.SESSION_IN, _held_session),
        (env.members_in, Link.MEMBER_IN, subject_key),
        (env.resources_in, Link.RESOURCE_IN, ref_key),
        (env.resources_of, Link.RESOURCE_OF, ref_key),
        (env.shares_with, Link.SHARE_WITH, ref_key),
    ):
        yield database, _links(dump.links(link), held_key)


def _mark_shared(environment: Environment) -> None:
    """Let the records of resources say that there are shares of them."""
    env = environment
    with env.lmdb.begin() as transaction:

        def marked() -> Iterator[Pair]:
            last = b""
            with transaction.cursor(env.shares) as cursor:
                for key in cursor.iternext(values=False):
                    ref = bytes(key)[: read_ref(bytes(key), 0)[1]]
                    if ref != last:
                        yield ref, with_shared(env.read(transaction, ref, env.resources), True)
                    last = ref

        _fill(env, env.resources, marked(), replace=True)


def _fill(
    environment: Environment, database: lmdb._Database, pairs: Iterable[Pair], *, replace: bool = False
) -> None:
    """Append what comes in the order of its keys; put the rest, and all that replaces, in its place."""
    left = iter(pairs)
    last = b""
    late: list[Pair] = []

    def in_order(chunk: Iterable[Pair]) -> Iterator[Pair]:
        nonlocal last
        for pair in chunk:
            # Packed ids do not sort where their text does.
            if pair[0] > last:
                last = pair[0]
                yield pair
            else:
                late.append(pair)

    more = True
    while more:
        with environment.lmdb.begin(write=True) as transaction, transaction.cursor(database) as cursor:
            chunk = islice(left, _CHUNK)
            if replace:
                consumed, _ = cursor.putmulti(chunk)
            else:
                consumed, added = cursor.putmulti(in_order(chunk), append=True)
                if added != consumed:  # LMDB passes over what it cannot append, and says no more of it
                    raise UnusableError(f"{consumed - added} records did not fit where they were put")
                cursor.putmulti(late)
        more = consumed + len(late) == _CHUNK
        late.clear()


def _course(course: Any) -> Pair:
    return course_key(course.id), course_record(course)


def _session(session: Any) -> Pair:
    return session_key(session.id), session_record(session)


def _held_session(session: SessionKey) -> bytes:
    return session_key(session.id)


def _resource(resource: Any) -> Pair:
    return ref_key(resource.key), resource_record(resource)


def _share(share: Any) -> Pair:
    return ref_key(share.resource) + subject_key(share.subject), share_record(share.level)


def _grants(memberships: Iterable[Membership]) -> Iterator[Pair]:
    """By subject and scope: what a subject holds in one scope comes in a row."""

    def place(membership: Membership) -> bytes:
        return subject_key(membership.subject) + scope_key(membership.scope)

    for key, held in groupby(memberships, place):
        yield key, join_grants({membership.role: grant_record(membership) for membership in held})


def _links(links: Iterable[tuple[Any, Any]], held_key: Callable[[Any], bytes]) -> Iterator[Pair]:
    """Without repeats in a row: several roles are one member. Many in a row are found by the same."""
    last = b""
    for holder, of_holder in groupby(links, itemgetter(0)):
        head = scope_key(holder) if isinstance(holder, Scope) else subject_key(holder)
        for _, held in of_holder:
            key = head + held_key(held)
            if key != last:
                yield key, b""
            last = key
