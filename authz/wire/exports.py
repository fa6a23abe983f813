"""Exports between protobuf and the domain."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from authz.domain.errors import malformed
from authz.domain.exports import (
    ExportBegin,
    ExportedChange,
    ExportedEntry,
    ExportedRecord,
    ExportEnd,
    ExportItem,
    ExportRelation,
    ExportRetention,
    ExportSection,
)
from authz.domain.mutations import Mutation, Operation
from authz.v1 import privacy_pb2 as pb
from authz.v1.common_pb2 import ConsistencyToken
from authz.wire.changes import parse_logged_mutation
from authz.wire.entities import mutation_message, versioned_in
from authz.wire.values import WireEnum, parse_subject, parse_time, subject_message, time_message

_MAX_MESSAGE_BYTES = 128 * 1024
_SECTIONS = WireEnum(pb.ExportSection.DESCRIPTOR, ExportSection)
_RELATIONS = WireEnum(pb.ExportRelation.DESCRIPTOR, ExportRelation)


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
    match item:
        case ExportBegin():
            return pb.ExportItem(begin=_begin_message(item))
        case ExportedRecord():
            record = mutation_message(Mutation(Operation.TOUCH, item.record))
            getattr(record, str(record.WhichOneof("entity"))).revision = item.revision
            relation = _RELATIONS.number(item.relation)
            return pb.ExportItem(record=pb.ExportedRecord(record=record, relation=relation))
        case ExportedChange():
            return pb.ExportItem(change=_change_message(item))
        case ExportedEntry():
            section, at = _SECTIONS.number(item.section), time_message(item.at)
            return pb.ExportItem(
                entry=pb.ExportedEntry(section=section, name=item.name, text=item.text, at=at)
            )
        case ExportEnd():
            counts = (
                pb.ExportCount(section=_SECTIONS.number(each), count=n) for each, n in item.counts.items()
            )
            return pb.ExportItem(end=pb.ExportEnd(counts=counts))


def _begin_message(item: ExportBegin) -> pb.ExportBegin:
    retention = (
        pb.ExportRetention(section=_SECTIONS.number(each.section), purpose=each.purpose, kept=each.kept)
        for each in item.retention
    )
    return pb.ExportBegin(
        subject=subject_message(item.subject),
        read_at=ConsistencyToken(token=item.token),
        committed_at=time_message(item.committed_at),
        retention=retention,
    )


def _change_message(item: ExportedChange) -> pb.ExportedChange:
    return pb.ExportedChange(
        committed_at=time_message(item.committed_at),
        actor=item.actor,
        reason=item.reason,
        request_id=item.request_id,
        mutations=map(mutation_message, item.mutations),
    )


def parse_export_item(message: pb.ExportItem) -> ExportItem:
    """An item that this service sent. Raises `InvalidArgumentError` for one of a later release."""
    match message.WhichOneof("item"):
        case "begin":
            return _parse_begin(message.begin)
        case "record":
            versioned = versioned_in(message.record.record, "entity")
            relation = _RELATIONS.parse(message.record.relation, field="relation")
            return ExportedRecord(versioned.entity, versioned.revision, relation)
        case "change":
            change = message.change
            return ExportedChange(
                committed_at=change.committed_at.ToMicroseconds(),
                actor=change.actor,
                reason=change.reason,
                request_id=change.request_id,
                mutations=tuple(map(parse_logged_mutation, change.mutations)),
            )
        case "entry":
            entry = message.entry
            at = parse_time(entry, "at", field="at")
            return ExportedEntry(_section(entry.section), entry.name, entry.text, at)
        case "end":
            return ExportEnd({_section(each.section): each.count for each in message.end.counts})
        case _:
            raise malformed("item", "is none that this release knows; upgrade the client")


def _parse_begin(message: pb.ExportBegin) -> ExportBegin:
    return ExportBegin(
        subject=parse_subject(message, "subject", field="subject"),
        token=message.read_at.token,
        committed_at=message.committed_at.ToMicroseconds(),
        retention=tuple(
            ExportRetention(_section(each.section), each.purpose, each.kept) for each in message.retention
        ),
    )


def _section(number: int) -> ExportSection:
    return _SECTIONS.parse(number, field="section")
