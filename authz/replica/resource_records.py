"""The record of a resource in the replica."""

from __future__ import annotations

from itertools import product
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec

from authz.domain.context import ResourceContext, ScopeContext
from authz.domain.entities import KINDS, Resource
from authz.domain.facts import OWN, Times, resource_facts, times_of
from authz.domain.ids import PLATFORM, ResourceRef
from authz.domain.kinds.fields import FieldType
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
        return Resource(
            type=ref.type,
            id=ref.id,
            scope=read_scope(self.scope, 0)[0],
            owner=whole_subject(self.owner) if self.owner else None,
            **_ATTRIBUTES[self.attributes].by_name(),
            **msgspec.structs.asdict(self.times),
        )

    def context(self, scope: ScopeContext, asker: bytes = _NOBODY) -> ResourceContext:
        """The resource in its scope, as the subject with the key `asker` finds it."""
        facts, is_shared = _FACTS[self.attributes]
        facts = facts & scope.state.possible | scope.state.facts
        is_own = self.owner == asker
        return ResourceContext(scope, facts | OWN if is_own else facts, self.times, is_shared)


class Attributes(NamedTuple):
    """What a record has of a resource as one number: the values of its flags and choices, in the order of the
    entity's fields.

    `is_shared` says whether the resource has any share, so that a check without one skips the lookup.
    """

    values: tuple[Any, ...]
    is_shared: bool

    def by_name(self) -> dict[str, Any]:
        """The values by the names of their fields."""
        return dict(zip(_NAMES, self.values, strict=True))

    @property
    def facts(self) -> int:
        """The facts whose resource part holds."""
        return resource_facts(Resource(type="", id="", scope=PLATFORM, **self.by_name()))


_VALUES = {
    field.name: field.choices or (False, True)
    for field in KINDS["resource"].other_fields
    if field.type in (FieldType.FLAG, FieldType.CHOICE)
}
_NAMES = tuple(_VALUES)
_values_of = attrgetter(*_NAMES)
# In an order that is a part of `layout.FORMAT`.
_ATTRIBUTES = [Attributes(*each) for each in product(product(*_VALUES.values()), (False, True))]
_NUMBERS = {attributes: number for number, attributes in enumerate(_ATTRIBUTES)}
_FACTS = [(attributes.facts, attributes.is_shared) for attributes in _ATTRIBUTES]
"""What a decision needs of the attributes with a number."""

decode_resource = msgspec.msgpack.Decoder(ResourceRecord).decode


def encode_resource(resource: Resource, *, is_shared: bool = False) -> bytes:
    """The record of a resource."""
    r = resource
    attributes = Attributes(_values_of(r), is_shared)
    owner = b"" if r.owner is None else subject_key(r.owner)
    return _encode(ResourceRecord(owner, _NUMBERS[attributes], scope_key(r.scope), times_of(r)))


def with_shared(record: ResourceRecord, is_shared: bool) -> bytes:
    """The same record, saying whether there is any share of the resource."""
    attributes = _ATTRIBUTES[record.attributes]._replace(is_shared=is_shared)
    return _encode(msgspec.structs.replace(record, attributes=_NUMBERS[attributes]))
