"""Records, keys and mutations between protobuf and the domain, derived for each kind from its fields."""

from __future__ import annotations

from typing import Any

from authz.domain.entities import KINDS, Entity, Key, Kind, Versioned, kind_of
from authz.domain.mutations import Expectation, Mutation, Operation, Precondition
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from authz.wire.fields import Formatter, Parser, formatters_of, parser_of
from authz.wire.values import enum_names, missing, parse_enum

OPERATIONS = enum_names(dpb.Operation.items(), "OPERATION_")
_EXPECTATIONS = enum_names(dpb.Expectation.items(), "EXPECTATION_")


class _Form:
    """The messages of one kind: named after its entity, with fields named after the entity's. A key is a
    message with only the identifying fields."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.message: Any = getattr(pb, kind.entity.__name__)
        self._parsers: dict[type, list[Parser]] = {}
        self._formatters: dict[type, list[Formatter]] = {}
        of = self.message.DESCRIPTOR
        for struct in (kind.entity, kind.key):
            fields = [kind.field(name) for name in struct.__struct_fields__]
            self._parsers[struct] = [parser_of(field, of, path=f"{kind.name}.") for field in fields]
            self._formatters[struct] = [each for field in fields for each in formatters_of(field, of)]

    def parse(self, m: Any, struct: type[Any]) -> Any:
        """The entity or the key of a message, as `struct` says."""
        return struct(*[parse(m) for parse in self._parsers[struct]])

    def format(self, record: Entity | Key) -> Any:
        """The message of an entity, without version, or of a key."""
        values = ((name, convert, get(record)) for get, name, convert in self._formatters[type(record)])
        return self.message(**{name: convert(value) for name, convert, value in values if value is not None})


_FORMS = {kind.name: _Form(kind) for kind in KINDS.values()}
_BY_MESSAGE = {form.message: form for form in _FORMS.values()}


def parse_versioned(m: Any) -> Versioned[Any]:
    """An entity with its version, as a Read call gives it."""
    form = _BY_MESSAGE[type(m)]
    return Versioned(form.parse(m, form.kind.entity), m.version)


def _parse_key(m: dpb.Mutation | dpb.Precondition) -> Key:
    name = m.WhichOneof("entity")
    if name is None:
        raise missing("entity")
    form = _FORMS[name]
    key: Key = form.parse(getattr(m, name), form.kind.key)
    return key


def parse_mutation(m: dpb.Mutation) -> Mutation:
    """A mutation; of a DELETE only the identifying fields are read."""
    operation = parse_enum(Operation, OPERATIONS, m.operation, field="mutation.operation")
    if operation is Operation.DELETE:
        return Mutation(operation, _parse_key(m))
    name = m.WhichOneof("entity")
    if name is None:
        raise missing("mutation.entity")
    form = _FORMS[name]
    return Mutation(operation, form.parse(getattr(m, name), form.kind.entity))


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
