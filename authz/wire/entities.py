"""Records, keys and mutations between protobuf and the domain, derived for each kind from its fields."""

from __future__ import annotations

from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask

from authz.domain.entities import KINDS, Entity, Key, Kind, Versioned, kind_of
from authz.domain.errors import malformed
from authz.domain.kinds.kind import require_path
from authz.domain.mutations import Expectation, Mutation, Operation, Precondition
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from authz.wire.fields import Formatter, Parser, formatted, formatters_of, name_in_message, parser_of
from authz.wire.limits import RequestLimits
from authz.wire.values import WireEnum, missing

_MASK_LIMITS = RequestLimits(FieldMask.DESCRIPTOR)
OPERATIONS = WireEnum(dpb.Operation.DESCRIPTOR, Operation)
_EXPECTATIONS = WireEnum(dpb.Expectation.DESCRIPTOR, Expectation)


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
        self._updates = {
            name_in_message(field): (field.name, parser_of(field, of, path=f"{kind.name}."))
            for field in kind.updatable.values()
        }
        """By path of an update mask, the name of a field and its parser."""
        self._paths = {
            field.name: (path, convert)
            for field in kind.updatable.values()
            for _, path, convert in formatters_of(field, of)
        }

    def parse(self, m: Any, struct: type[Any]) -> Any:
        """The entity or the key of a message, as `struct` says."""
        return struct(*[parse(m) for parse in self._parsers[struct]])

    def format(self, record: Entity | Key) -> Any:
        """The message of an entity, without revision, or of a key."""
        return self.message(**formatted(record, self._formatters[type(record)]))

    def parse_update(self, m: Any, mask: FieldMask) -> Mutation:
        """The update of the fields that a mask names."""
        _MASK_LIMITS.require_items(mask)
        names = self.message.DESCRIPTOR.fields_by_name
        paths = self._updates if "*" in mask.paths else dict.fromkeys(mask.paths)
        parsers = [require_path(path, self._updates, names) for path in paths]
        return Mutation(
            Operation.UPDATE, self.parse(m, self.kind.key), tuple((name, parse(m)) for name, parse in parsers)
        )

    def format_update(self, update: Mutation) -> Any:
        """The message of an update, and the paths of its mask. Raises as `Kind.validate_update`."""
        self.kind.validate_update(update.values)
        message = self.format(update.key)
        given = [(*self._paths[name], value) for name, value in update.values]
        set_ = {path: convert(value) for path, convert, value in given if value is not None}
        message.MergeFrom(self.message(**set_))
        return message, [path for path, *_ in given]


_FORMS = {kind.name: _Form(kind) for kind in KINDS.values()}
_BY_MESSAGE = {form.message: form for form in _FORMS.values()}


def parse_versioned(m: Any) -> Versioned[Any]:
    """An entity with its revision, as a Read call gives it."""
    form = _BY_MESSAGE[type(m)]
    return Versioned(form.parse(m, form.kind.entity), m.revision)


def versioned_in(m: Any, choice: str) -> Versioned[Any]:
    """The entity of a message that this service sent. Raises `InvalidArgumentError` for a kind of a later
    release."""
    name = m.WhichOneof(choice)
    if name is None:
        raise malformed(choice, "is of a kind that this release does not know; upgrade the client")
    return parse_versioned(getattr(m, name))


def _form_of(m: dpb.Mutation | dpb.Precondition) -> tuple[_Form, Any]:
    name = m.WhichOneof("entity")
    if name is None:
        raise missing("entity")
    return _FORMS[name], getattr(m, name)


def parse_mutation(m: dpb.Mutation) -> Mutation:
    """A mutation; of a DELETE only the identifying fields are read, of an UPDATE also those of its mask."""
    operation = OPERATIONS.parse(m.operation, field="mutation.operation")
    form, body = _form_of(m)
    if form.kind.service:
        problem = f"is of the kind {form.kind.name}, which only {form.kind.service} writes; call that instead"
        raise malformed("mutation.entity", problem)
    if operation is Operation.UPDATE:
        return form.parse_update(body, m.update_mask)
    if m.HasField("update_mask"):
        raise malformed("update_mask", f"is only for UPDATE, and this is a {operation}; leave it out")
    struct = form.kind.key if operation is Operation.DELETE else form.kind.entity
    return Mutation(operation, form.parse(body, struct))


def parse_precondition(m: dpb.Precondition) -> Precondition:
    """A precondition; its revision is that of the entity field."""
    expectation = _EXPECTATIONS.parse(m.expectation, field="precondition.expectation")
    form, body = _form_of(m)
    return Precondition(form.parse(body, form.kind.key), expectation, body.revision)


def precondition_message(precondition: Precondition) -> dpb.Precondition:
    """A precondition as a message."""
    kind = kind_of(precondition.key)
    body = _FORMS[kind.name].format(precondition.key)
    body.revision = precondition.revision
    expectation = _EXPECTATIONS.number(precondition.expectation)
    return dpb.Precondition(expectation=expectation, **{kind.name: body})


def entity_message(versioned: Versioned[Any]) -> Any:
    """An entity with its revision, as a message."""
    message = _FORMS[kind_of(versioned.entity).name].format(versioned.entity)
    message.revision = versioned.revision
    return message


def mutation_message(mutation: Mutation) -> dpb.Mutation:
    """A mutation as a message. A key fills the identifying fields only."""
    form = _FORMS[kind_of(mutation.target).name]
    operation = OPERATIONS.number(mutation.operation)
    if mutation.operation is Operation.UPDATE:
        body, paths = form.format_update(mutation)
        return dpb.Mutation(operation=operation, update_mask=FieldMask(paths=paths), **{form.kind.name: body})
    return dpb.Mutation(operation=operation, **{form.kind.name: form.format(mutation.target)})
