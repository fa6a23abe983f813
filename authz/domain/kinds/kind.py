"""What a kind of record is: all that the store, the wire form and the replica need to know of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Generic, Self, TypeVar

import msgspec

from authz.domain.errors import ErrorReason, InvalidArgumentError, malformed
from authz.domain.ids import ScopeKind
from authz.domain.kinds.fields import Field, FieldType, check_of, fields_of
from authz.domain.vocabulary import Vocabulary, suggest

_MASK = "update_mask"
_MAX_SHOWN = 64

T = TypeVar("T")
EntityT_co = TypeVar("EntityT_co", covariant=True)


class RecordKey(msgspec.Struct, frozen=True, gc=False, tag_field="kind"):
    """What identifies a record."""

    @property
    def key(self) -> Self:
        """Itself."""
        return self


class Filter(msgspec.Struct, Generic[EntityT_co], frozen=True):
    """Which records of one kind. An empty field filters nothing; all fields that are set must match.

    A field is named after the entity's field that it is compared with. In the plural it holds the accepted
    values.
    """


class Container(msgspec.Struct, frozen=True):
    """The record that every record of a kind is in.

    It must exist, it never changes, and its deletion deletes what is in it.
    """

    field: str
    """The field that names it."""
    kinds: tuple[str, ...]
    """The names of the kinds that it may be of."""
    key_of: Callable[[Any], Any | None]
    """Its key, from a value of the field other than None; None for no record."""
    value_of: Callable[[Any], Any]
    """The value of the field that names the record with a key."""


_POLICY_NAME_TYPES = (FieldType.ROLE, FieldType.TYPE, FieldType.RESOURCE)
"""The types of fields that hold names that a policy declares."""


def _accept(*_: Any) -> None:
    """Accept everything."""


class Kind:
    """One kind of record.

    `key_order` are the fields of the key in the order of listings. `lookups` are the fields by which records
    are found besides the first field of the key. `scope` is set for a kind whose records are scopes, and
    `service` for one whose records only that service of the API writes.
    """

    def __init__(
        self,
        entity: type[Any],
        key: type[Any],
        filter_type: type[Filter[Any]],
        *,
        key_order: tuple[str, ...],
        container: Container | None = None,
        scope: ScopeKind | None = None,
        lookups: tuple[str, ...] = (),
        rule: Callable[[Any, Vocabulary], None] = _accept,
        container_rule: Callable[[Any, Any], None] = _accept,
        service: str = "",
    ) -> None:
        self.name = str(entity.__struct_config__.tag)
        """As the change log, the oneofs of the API and error messages have it."""
        self.plural = plural_of(self.name)
        self.entity, self.key, self.filter_type = entity, key, filter_type
        self.container, self.scope, self.lookups = container, scope, lookups
        self.service = service
        by_name = {field.name: field for field in fields_of(entity)}
        self.key_fields = tuple(by_name.pop(name) for name in key_order)
        self.other_fields = tuple(by_name.values())
        self.filters = tuple(
            (asked, next(field for field in self.fields if asked.name in (field.name, plural_of(field.name))))
            for asked in fields_of(filter_type)
        )
        """The fields of the filter, each with the field of the entity that it is compared with."""
        fixed = None if container is None else container.field
        self.updatable = {field.name: field for field in self.other_fields if field.name != fixed}
        """By name, the fields that an update can change: none of the key, and not the container."""
        self.validate_container = container_rule
        """Raise `InvalidArgumentError` for an entity that the second argument, its container, cannot hold."""
        self.validate_rule = rule
        """Raise `InvalidArgumentError` for an entity whose fields do not fit each other or the policy."""
        self.uses_vocabulary = any(field.type in _POLICY_NAME_TYPES for field in self.fields)
        """Whether the policy says which entities are valid."""
        self._key_checks = self._checks(self.key_fields)
        self._other_checks = self._checks(self.other_fields)

    @property
    def fields(self) -> tuple[Field, ...]:
        """All fields of the entity: those of the key in the order of listings, then the others."""
        return self.key_fields + self.other_fields

    def field(self, name: str) -> Field:
        """The field of a name."""
        return next(field for field in self.fields if field.name == name)

    def order_by(self, name: str) -> tuple[Field, ...]:
        """A field and the fields of the key, in the order of entities found by that field."""
        first = self.field(name)
        return (first, *(field for field in self.key_fields if field is not first))

    def validate_key(self, key: Any) -> None:
        """Raise `InvalidArgumentError` (MALFORMED_ID) for an id that is not well-formed."""
        for name, check in self._key_checks:
            check(getattr(key, name))

    def validate(self, entity: Any, vocabulary: Vocabulary) -> None:
        """Raise `InvalidArgumentError` for an entity that no directory can hold; its key is not validated."""
        self.validate_fields(entity)
        self.validate_rule(entity, vocabulary)

    def validate_fields(self, entity: Any) -> None:
        """Raise `InvalidArgumentError` for a field outside the key that is not well-formed."""
        for name, check in self._other_checks:
            value = getattr(entity, name)
            if value is not None:
                check(value)

    def validate_update(self, values: Sequence[tuple[str, Any]]) -> None:
        """Raise `InvalidArgumentError` unless there are values, each for a field that can change."""
        if not values:
            raise InvalidArgumentError(
                ErrorReason.MISSING_FIELD, "update_mask is empty; name the fields to change", field=_MASK
            )
        names = [field.name for field in self.fields]
        for name, value in values:
            field = require_path(name, self.updatable, names)
            if value is None and not field.is_optional:
                raise malformed(name, "is empty; give it a value")

    def container_key(self, record: Any) -> Any | None:
        """The key of the record that this one is in; None for none, and if a key alone does not say it."""
        if self.container is None:
            return None
        value = getattr(record, self.container.field, None)
        return None if value is None else self.container.key_of(value)

    def _checks(self, fields: Iterable[Field]) -> list[tuple[str, Callable[[Any], object]]]:
        checks = ((field.name, check_of(field, self._label(field))) for field in fields)
        return [(name, check) for name, check in checks if check is not None]

    def _label(self, field: Field) -> str:
        if field.type in (FieldType.INSTANT, FieldType.TEXT):
            return field.name
        own = field.name in ("id", "type")
        return f"{self.name} {field.name}" if own else field.name.replace("_", " ")


def require_path(path: str, known: Mapping[str, T], others: Collection[str]) -> T:
    """What `known` has for a path of an update mask; `others` are fields that no update can change.

    Raises `InvalidArgumentError` (MALFORMED_FIELD), which names the path.
    """
    if path in known:
        return known[path]
    shown, head = ascii(path[:_MAX_SHOWN])[1:-1], path.partition(".")[0]
    if head in known:
        raise malformed(_MASK, f"names `{shown}`; a field is changed as a whole: name `{head}`")
    if head in others:
        raise malformed(_MASK, f"names `{shown}`, which no update can change; leave it out")
    raise malformed(_MASK, f"names the unknown field `{shown}`; {suggest(shown, known)}")


def plural_of(word: str) -> str:
    """The English plural."""
    return f"{word}es" if word.endswith("s") else f"{word}s"
