"""Records, keys and mutations between protobuf and the domain, derived for each kind from its fields."""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter
from typing import Any

from authz.domain.entities import KINDS, Entity, Key, Kind, Versioned, kind_of
from authz.domain.kinds.fields import Field
from authz.domain.mutations import Expectation, Mutation, Operation, Precondition
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from authz.wire.fields import Parser, formatters_of, parser_of
from authz.wire.values import enum_names, missing, parse_enum

OPERATIONS = enum_names(dpb.Operation.items(), "OPERATION_")
_EXPECTATIONS = enum_names(dpb.Expectation.items(), "EXPECTATION_")


class _Form:
    """How the records of one kind are messages: the message is named after the entity, its fields after the
    entity's."""

    def __init__(self, kind: Kind) -> None:
        self._kind = kind
        self.message: Any = getattr(pb, kind.entity.__name__)
        self._parsers = self._parsers_of(kind.fields)
        self._key_parsers = self._parsers_of(kind.key_fields)
        self._formatters = self._formatters_of(kind.fields)
        self._key_formatters = self._formatters_of(kind.key_fields)

    def _parsers_of(self, fields: Iterable[Field]) -> list[tuple[str, Parser]]:
        of = self.message.DESCRIPTOR
        return [(field.name, parser_of(field, of, path=f"{self._kind.name}.")) for field in fields]

    def _formatters_of(self, fields: Iterable[Field]) -> list[tuple[Any, str, Any]]:
        formatters = (each for field in fields for each in formatters_of(field, self.message.DESCRIPTOR))
        return [(attrgetter(path), name, convert) for path, name, convert in formatters]

    def parse(self, m: Any) -> Any:
        """The entity of a message."""
        return self._kind.entity(**{name: parse(m) for name, parse in self._parsers})

    def parse_key(self, m: Any) -> Any:
        """The key of a message; no other field is read."""
        return self._kind.key(**{name: parse(m) for name, parse in self._key_parsers})

    def format(self, record: Entity | Key) -> Any:
        """The message of an entity, without version, or of a key."""
        formatters = self._formatters if isinstance(record, self._kind.entity) else self._key_formatters
        values = ((name, convert, get(record)) for get, name, convert in formatters)
        return self.message(**{name: convert(value) for name, convert, value in values if value is not None})


_FORMS = {kind.name: _Form(kind) for kind in KINDS.values()}
_BY_MESSAGE = {form.message: form for form in _FORMS.values()}


def parse_versioned(m: Any) -> Versioned[Any]:
    """An entity with its version, as a Read call gives it."""
    return Versioned(_BY_MESSAGE[type(m)].parse(m), m.version)


def _parse_key(m: dpb.Mutation | dpb.Precondition) -> Key:
    name = m.WhichOneof("entity")
    if name is None:
        raise missing("entity")
    key: Key = _FORMS[name].parse_key(getattr(m, name))
    return key


def parse_mutation(m: dpb.Mutation) -> Mutation:
    """A mutation; of a DELETE only the identifying fields are read."""
    operation = parse_enum(Operation, OPERATIONS, m.operation, field="mutation.operation")
    if operation is Operation.DELETE:
        return Mutation(operation, _parse_key(m))
    name = m.WhichOneof("entity")
    if name is None:
        raise missing("mutation.entity")
    return Mutation(operation, _FORMS[name].parse(getattr(m, name)))


def parse_precondition(m: dpb.Precondition) -> Precondition:
    """A precondition; its version is that of the entity field."""
    expectation = parse_enum(Expectation, _EXPECTATIONS, m.expectation, field="precondition.expectation")
    key = _parse_key(m)
    version: int = getattr(m, str(m.WhichOneof("entity"))).version
    return Precondition(key, expectation, version)


def precondition_message(precondition: Precondition) -> dpb.Precondition:
    """A precondition as a message."""
    kind = kind_of(precondition.key)
    body = _FORMS[kind.name].format(precondition.key)
    body.version = precondition.version
    expectation = dpb.Expectation.Value(f"EXPECTATION_{precondition.expectation}")
    return dpb.Precondition(expectation=expectation, **{kind.name: body})


def entity_message(versioned: Versioned[Any]) -> Any:
    """An entity with its version, as a message."""
    message = _FORMS[kind_of(versioned.entity).name].format(versioned.entity)
    message.version = versioned.version
    return message


def mutation_message(mutation: Mutation) -> dpb.Mutation:
    """A mutation as a message. A key fills the identifying fields only."""
    name = kind_of(mutation.target).name
    operation = dpb.Operation.Value(f"OPERATION_{mutation.operation}")
    return dpb.Mutation(operation=operation, **{name: _FORMS[name].format(mutation.target)})
