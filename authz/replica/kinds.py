"""The codec of each kind of record: a compact one of its own for what every check reads."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any

from authz.domain.entities import KINDS, Course, Membership, Resource, Session, Share
from authz.domain.ports import Dump
from authz.replica.codec import Codec, Databases, Pair
from authz.replica.layout import (
    course_key,
    course_record,
    grant_record,
    is_shared,
    join_grants,
    read_course,
    read_ref,
    read_resource,
    read_session,
    ref_key,
    resource_record,
    session_key,
    session_record,
    share_record,
    split_grants,
    unpack_id,
    with_shared,
)

_COURSE, _SESSION, _MEMBERSHIP, _RESOURCE, _SHARE = (
    KINDS[name] for name in ("course", "session", "membership", "resource", "share")
)


class _CourseCodec(Codec):
    def record_of(self, entity: Course, _before: bytes) -> bytes:
        return course_record(entity)

    def read(self, key: bytes, record: bytes) -> Course:
        return read_course(unpack_id(key, 1)[0], record)


class _SessionCodec(Codec):
    """Without dates."""

    def record_of(self, entity: Session, _before: bytes) -> bytes:
        return session_record(entity)

    def read(self, key: bytes, record: bytes) -> Session:
        return read_session(unpack_id(key, 1)[0], record)


class _GrantCodec(Codec):
    """All that a subject holds in one scope is one record, by role."""

    def record_of(self, entity: Membership, before: bytes) -> bytes:
        return join_grants(split_grants(before) | {entity.role: grant_record(entity)})

    def rest_of(self, key: Any, before: bytes) -> bytes:
        grants = split_grants(before)
        grants.pop(key.role, None)
        return join_grants(grants) if grants else b""

    def pairs(self, dump: Dump) -> Iterator[Pair]:
        for key, held in groupby(dump.entities(self.kind, by="subject"), self.key_of):
            yield key, join_grants({membership.role: grant_record(membership) for membership in held})


class _ResourceCodec(Codec):
    """The record says whether there is any share of the resource, so that a check without one does not look
    for it."""

    def record_of(self, entity: Resource, before: bytes) -> bytes:
        return resource_record(entity, shared=is_shared(before))

    def read(self, key: bytes, record: bytes) -> Resource:
        return read_resource(read_ref(key, 0)[0], record)

    def pairs(self, dump: Dump) -> Iterator[Pair]:
        # Both come in the order of type and id.
        shared = map(itemgetter(0), dump.values(_SHARE, ["resource"]))
        next_shared = next(shared, None)
        for resource in dump.entities(self.kind):
            ref = resource.key
            while next_shared is not None and next_shared < ref:
                next_shared = next(shared, None)
            yield ref_key(ref), resource_record(resource, shared=ref == next_shared)


class _ShareCodec(Codec):
    def record_of(self, entity: Share, _before: bytes) -> bytes:
        return share_record(entity.level)

    def put(self, databases: Databases, entity: Share) -> None:
        super().put(databases, entity)
        self._mark(databases, ref_key(entity.resource), shared=True)

    def remove(self, databases: Databases, key: Any) -> None:
        super().remove(databases, key)
        ref = ref_key(key.resource)
        self._mark(databases, ref, shared=databases.has_prefix(self.database, ref))

    def _mark(self, databases: Databases, ref: bytes, *, shared: bool) -> None:
        """Let the resource's record say whether there are shares of it."""
        record = databases.get("resources", ref)
        if record and is_shared(record) is not shared:
            databases.put("resources", ref, with_shared(record, shared))


_OWN = [
    _CourseCodec(_COURSE, "scopes", encoders={"id": course_key}),
    _SessionCodec(
        _SESSION,
        "scopes",
        indexes={"course_id": "sessions_in"},
        encoders={"id": session_key, "course_id": course_key},
    ),
    _GrantCodec(_MEMBERSHIP, "members", key=("subject", "scope"), indexes={"scope": "members_in"}),
    _ResourceCodec(_RESOURCE, indexes={"scope": "resources_in", "owner": "resources_of"}),
    _ShareCodec(_SHARE, indexes={"subject": "shares_with"}),
]
CODECS = {kind.name: Codec(kind) for kind in KINDS.values()} | {codec.kind.name: codec for codec in _OWN}
"""By kind. Any kind without a codec of its own has the default one."""

DATABASES = sorted(
    {name for codec in CODECS.values() for name in (codec.database, *(i.database for i in codec.indexes))}
)
"""The names of all databases of records."""
