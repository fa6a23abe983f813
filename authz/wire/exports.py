"""Exports between protobuf and the domain."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from authz.domain.exports import (
    ExportBegin,
    ExportedChange,
    ExportedEntry,
    ExportedRecord,
    ExportEnd,
    ExportItem,
    ExportRelation,
    ExportSection,
)
from authz.domain.mutations import Mutation, Operation
from authz.v1 import privacy_pb2 as pb
from authz.wire.entities import mutation_message, parse_versioned
from authz.wire.forms import Codec, Form
from authz.wire.values import WireEnum

_MAX_MESSAGE_BYTES = 128 * 1024
_SECTIONS = WireEnum(pb.ExportSection.DESCRIPTOR, ExportSection)
_RELATIONS = WireEnum(pb.ExportRelation.DESCRIPTOR, ExportRelation)
_COUNTS = Codec(
    lambda counts: [pb.ExportCount(section=_SECTIONS.number(each), count=n) for each, n in counts.items()],
    lambda messages: {_SECTIONS.parse(each.section, field="section"): each.count for each in messages},
)
_ITEMS: dict[type, tuple[str, Form[Any]]] = {
    ExportBegin: ("begin", Form(ExportBegin, pb.ExportBegin, names={"token": "read_at"})),
    ExportedChange: ("change", Form(ExportedChange, pb.ExportedChange)),
    ExportedEntry: ("entry", Form(ExportedEntry, pb.ExportedEntry)),
    ExportEnd: ("end", Form(ExportEnd, pb.ExportEnd, counts=_COUNTS)),
}
"""The field of an item, and what converts it; a record is converted by its kind."""
_FORMS = dict(_ITEMS.values())


def export_messages(items: Iterable[ExportItem]) -> Iterator[pb.ExportSubjectResponse]:
    """The items in messages of bounded size, unless a single item is larger."""
    message, size_bytes = pb.ExportSubjectResponse(), 0
    for item in items:
        rendered = _item_message(item)
        size_bytes += rendered.ByteSize()
        if message.items and size_bytes > _MAX_MESSAGE_BYTES:
            yield message
            message, size_bytes = pb.ExportSubjectResponse(), rendered.ByteSize()
        message.items.append(rendered)
    yield message


def _item_message(item: ExportItem) -> pb.ExportItem:
    if isinstance(item, ExportedRecord):
        record = mutation_message(Mutation(Operation.TOUCH, item.record))
        getattr(record, str(record.WhichOneof("entity"))).revision = item.revision
        relation = _RELATIONS.number(item.relation)
        return pb.ExportItem(record=pb.ExportedRecord(record=record, relation=relation))
    name, form = _ITEMS[type(item)]
    return pb.ExportItem(**{name: form.message(item)})


def parse_export_item(message: pb.ExportItem) -> ExportItem:
    """An item that this service sent."""
    name = str(message.WhichOneof("item"))
    if name == "record":
        record: Any = message.record.record
        versioned = parse_versioned(getattr(record, str(record.WhichOneof("entity"))))
        relation = _RELATIONS.parse(message.record.relation, field="relation")
        return ExportedRecord(versioned.entity, versioned.revision, relation)
    item: ExportItem = _FORMS[name].parse(getattr(message, name))
    return item
