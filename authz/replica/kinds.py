"""The codec of each kind of record: a compact one of its own for what every check reads."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter

from authz.domain.entities import KINDS, Membership, Resource, RetainedData, RetentionRule, Share
from authz.domain.ports import Dump
from authz.replica.codec import Codec, Databases, Pair
from authz.replica.layout import (
    NUMBER_BYTES,
    StoredMembership,
    decode_memberships,
    encode_memberships,
    number_key,
    read_ref,
    ref_key,
    stored_membership,
)
from authz.replica.resource_records import decode_resource, encode_resource, with_shared

TOMBSTONES, TOMBSTONES_BY_AGE = "tombstones", "tombstones_by_age"
"""The databases of the resources that were deleted: when, by their key, and their keys, by when."""
_MEMBERSHIP, _RESOURCE, _SHARE = (KINDS[name] for name in ("membership", "resource", "share"))


class _MembershipCodec(Codec):
    """All memberships of a subject in one scope are one record, by role."""

    def record_of(self, entity: Membership, before: bytes) -> bytes:
        return encode_memberships([*self._others_in(entity, before), stored_membership(entity)])

    def rest_of(self, entity: Membership, before: bytes) -> bytes:
        return encode_memberships(self._others_in(entity, before))

    def pairs(self, dump: Dump) -> Iterator[Pair]:
        for key, held in groupby(dump.entities(self.kind, by="subject"), self.key_of):
            yield key, encode_memberships(map(stored_membership, held))

    def _others_in(self, entity: Membership, record: bytes) -> list[StoredMembership]:
        return [each for each in decode_memberships(record) if each[0] != entity.role]


class _ResourceCodec(Codec):
    """The record says whether there is any share of the resource, so that a check without one does not look
    for it. A resource that is deleted leaves a tombstone."""

    def put(self, databases: Databases, entity: Resource) -> None:
        super().put(databases, entity)
        _remove_tombstone(databases, self.key_of(entity))

    def remove(self, databases: Databases, entity: Resource) -> None:
        super().remove(databases, entity)
        key, at = self.key_of(entity), number_key(databases.committed_at)
        _remove_tombstone(databases, key)
        databases.put(TOMBSTONES, key, at)
        databases.put(TOMBSTONES_BY_AGE, at + key)

    def record_of(self, entity: Resource, before: bytes) -> bytes:
        is_shared = bool(before) and decode_resource(before).is_shared
        return encode_resource(entity, is_shared=is_shared)

    def read(self, key: bytes, record: bytes) -> Resource:
        return decode_resource(record).resource(read_ref(key, 0)[0])

    def pairs(self, dump: Dump) -> Iterator[Pair]:
        # Both come in the order of type and id.
        shared = map(itemgetter(0), dump.values(_SHARE, ["resource"]))
        next_shared = next(shared, None)
        for resource in dump.entities(self.kind):
            ref = resource.key
            while next_shared is not None and next_shared < ref:
                next_shared = next(shared, None)
            yield ref_key(ref), encode_resource(resource, is_shared=ref == next_shared)


class _ShareCodec(Codec):
    """The resource's record says whether there are shares of it."""

    def put(self, databases: Databases, entity: Share) -> None:
        super().put(databases, entity)
        self._mark(databases, ref_key(entity.resource), shared=True)

    def remove(self, databases: Databases, entity: Share) -> None:
        super().remove(databases, entity)
        ref = ref_key(entity.resource)
        self._mark(databases, ref, shared=databases.has_prefix(self.database, ref))

    def _mark(self, databases: Databases, ref: bytes, *, shared: bool) -> None:
        """Let the resource's record say whether there are shares of it."""
        raw = databases.get("resources", ref)
        if raw and (record := decode_resource(raw)).is_shared is not shared:
            marked = with_shared(record, shared)
            databases.put("resources", ref, marked)
            databases.put("resources_by_scope", record.scope + ref, marked)


class _RetentionRuleCodec(Codec):
    """A purge of tombstones is logged once, at its end, and removes them from the replica, too."""

    def put(self, databases: Databases, entity: RetentionRule) -> None:
        super().put(databases, entity)
        since = entity.complete_since
        if entity.data is RetainedData.TOMBSTONES and since is not None:
            for key in databases.pop_keys_before(TOMBSTONES_BY_AGE, number_key(since)):
                _remove_tombstone(databases, key[NUMBER_BYTES:])


def _remove_tombstone(databases: Databases, key: bytes) -> None:
    if at := databases.get(TOMBSTONES, key):
        databases.delete(TOMBSTONES, key)
        databases.delete(TOMBSTONES_BY_AGE, at + key)


CODECS = {kind.name: Codec(kind) for kind in KINDS.values()} | {
    "membership": _MembershipCodec(_MEMBERSHIP, key=("subject", "scope"), lookups=("scope",)),
    "resource": _ResourceCodec(_RESOURCE, covering="scope"),
    "share": _ShareCodec(_SHARE),
    "retention_rule": _RetentionRuleCodec(KINDS["retention_rule"]),
}
"""By kind."""

DATABASES = sorted(
    {name for codec in CODECS.values() for name in (codec.database, *(i.database for i in codec.indexes))}
    | {TOMBSTONES, TOMBSTONES_BY_AGE}
)
"""The names of all databases."""
