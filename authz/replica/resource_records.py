"""The record of a resource in the replica."""

from __future__ import annotations

from itertools import product, starmap
from typing import NamedTuple

import msgspec

from authz.domain.context import ResourceContext, ScopeContext
from authz.domain.entities import Resource, Visibility
from authz.domain.facts import OWN, Times, resource_facts, times_of
from authz.domain.ids import PLATFORM, ResourceRef
from authz.replica.layout import read_scope, scope_key, subject_key, whole_subject

_NOBODY = b"-"
"""The key of no subject."""
_encode = msgspec.msgpack.Encoder().encode


class ResourceRecord(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A resource without its type and id. `scope` is its key."""

    owner: bytes
    """The owner's key, empty for none."""
    attributes: int
    """The number of what its facts depend on, besides its owner and times; see `Attributes`."""
    scope: bytes
    times: Times

    @property
    def is_shared(self) -> bool:
        """Whether the resource has any share."""
        return _ATTRIBUTES[self.attributes].is_shared

    def resource(self, ref: ResourceRef) -> Resource:
        """The resource with this name."""
        attributes = _ATTRIBUTES[self.attributes]
        return Resource(
            type=ref.type,
            id=ref.id,
            scope=read_scope(self.scope, 0)[0],
            owner=whole_subject(self.owner) if self.owner else None,
            visibility=attributes.visibility,
            published=attributes.published,
            locked=attributes.locked,
            ai_allowed=attributes.ai_allowed,
            **msgspec.structs.asdict(self.times),
        )

    def context(self, scope: ScopeContext, asker: bytes = _NOBODY) -> ResourceContext:
        """The resource in its scope, as the subject with the key `asker` finds it."""
        facts, is_shared = _FACTS[self.attributes]
        facts = facts & scope.state.possible | scope.state.facts
        is_own = self.owner == asker
        return ResourceContext(scope, facts | OWN if is_own else facts, self.times, is_shared)


class Attributes(NamedTuple):
    """What a record has of a resource as one number.

    `is_shared` says whether the resource has any share, so that a check without one skips the lookup.
    """

    visibility: Visibility
    published: bool
    locked: bool
    ai_allowed: bool
    is_shared: bool

    @property
    def facts(self) -> int:
        """The facts whose resource part holds."""
        return resource_facts(
            Resource(
                type="",
                id="",
                scope=PLATFORM,
                visibility=self.visibility,
                published=self.published,
                locked=self.locked,
                ai_allowed=self.ai_allowed,
            )
        )


# In an order that is a part of `layout.FORMAT`.
_ATTRIBUTES = list(starmap(Attributes, product(Visibility, *[(False, True)] * 4)))
_NUMBERS = {attributes: number for number, attributes in enumerate(_ATTRIBUTES)}
_FACTS = [(attributes.facts, attributes.is_shared) for attributes in _ATTRIBUTES]
"""What a decision needs of the attributes with a number."""

decode_resource = msgspec.msgpack.Decoder(ResourceRecord).decode


def encode_resource(resource: Resource, *, is_shared: bool = False) -> bytes:
    """The record of a resource."""
    r = resource
    attributes = Attributes(r.visibility, r.published, r.locked, r.ai_allowed, is_shared)
    owner = b"" if r.owner is None else subject_key(r.owner)
    return _encode(ResourceRecord(owner, _NUMBERS[attributes], scope_key(r.scope), times_of(r)))


def with_shared(record: ResourceRecord, is_shared: bool) -> bytes:
    """The same record, saying whether there is any share of the resource."""
    attributes = _ATTRIBUTES[record.attributes]._replace(is_shared=is_shared)
    return _encode(msgspec.structs.replace(record, attributes=_NUMBERS[attributes]))
