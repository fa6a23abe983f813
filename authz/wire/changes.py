"""What a watch asks for and what it is sent, between protobuf and the domain."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from authz.domain.change_filter import ChangeFilter
from authz.domain.entities import EntityKind
from authz.domain.errors import malformed
from authz.domain.instants import US_PER_S, Instant
from authz.domain.mutations import Change, Mutation, Operation
from authz.v1 import common_pb2
from authz.v1 import directory_pb2 as dpb
from authz.v1 import watch_pb2 as pb
from authz.wire.entities import OPERATIONS, mutation_message, versioned_in
from authz.wire.values import WireEnum, parse_scope_message, subject_message, time_message

DEFAULT_CHECKPOINT_INTERVAL_US = US_PER_S
MIN_CHECKPOINT_INTERVAL_US = US_PER_S // 10
MAX_CHECKPOINT_INTERVAL_US = 60 * US_PER_S
_MAX_CHANGE_BYTES = 256 * 1024

ENTITY_KINDS = WireEnum(pb.EntityKind.DESCRIPTOR, EntityKind)


def change_filter(request: pb.WatchRequest) -> ChangeFilter:
    """Which changes to send."""
    return ChangeFilter(
        scopes=frozenset(
            parse_scope_message(scope, field=f"scopes[{position}]")
            for position, scope in enumerate(request.scopes)
        ),
        kinds=frozenset(ENTITY_KINDS.parse(number, field="kinds") for number in request.kinds),
    )


def checkpoint_interval_s(request: pb.WatchRequest) -> float:
    """How often to send a checkpoint."""
    if not request.HasField("checkpoint_interval"):
        return DEFAULT_CHECKPOINT_INTERVAL_US / US_PER_S
    interval_us = request.checkpoint_interval.ToMicroseconds()
    if not MIN_CHECKPOINT_INTERVAL_US <= interval_us <= MAX_CHECKPOINT_INTERVAL_US:
        raise malformed(
            "checkpoint_interval", "is out of range; set 0.1 s to 60 s, or leave it absent for 1 s"
        )
    return interval_us / US_PER_S


class WatchMessages:
    """The messages of a watch. None is larger than `max_message_bytes` unless a single mutation is."""

    def __init__(self, *, max_message_bytes: int) -> None:
        # Half is left for what a message holds besides its mutations.
        self._max_change_bytes = min(_MAX_CHANGE_BYTES, max_message_bytes // 2)

    def checkpoint(self, token: str, *, caught_up: bool, now: Instant) -> pb.WatchResponse:
        """A checkpoint."""
        read_up_to = common_pb2.ConsistencyToken(token=token)
        found = pb.Checkpoint(read_up_to=read_up_to, caught_up=caught_up, server_time=time_message(now))
        return pb.WatchResponse(checkpoint=found)

    def changes(
        self, change: Change, mutations: Iterable[Mutation], token: str
    ) -> Iterator[pb.WatchResponse | None]:
        """Mutations of a change in order, in messages that are neither empty nor `last`.

        Yields None for each mutation that completes no message."""
        message, size_bytes = _empty(change, token), 0
        for mutation in mutations:
            logged = _logged_message(mutation, change.revision)
            if size_bytes and size_bytes + logged.ByteSize() > self._max_change_bytes:
                yield message
                message, size_bytes = _empty(change, token), 0
            else:
                yield None
            message.change.mutations.append(logged)
            size_bytes += logged.ByteSize()
        if size_bytes:
            yield message

    def mark_last(self, message: pb.WatchResponse) -> None:
        """Say that the change ends with this message."""
        message.change.last = True


def _empty(change: Change, token: str) -> pb.WatchResponse:
    return pb.WatchResponse(
        change=pb.WatchChange(
            written_at=common_pb2.ConsistencyToken(token=token),
            committed_at=time_message(change.committed_at),
            actor=change.actor,
            reason=change.reason,
            erasing=map(subject_message, change.erasing),
        )
    )


def _logged_message(mutation: Mutation, revision: int) -> dpb.Mutation:
    message = mutation_message(mutation)
    if mutation.operation is not Operation.DELETE:
        getattr(message, mutation.kind.value).revision = revision
    return message


def parse_logged_mutation(message: dpb.Mutation) -> Mutation:
    """A mutation as the log has it: a DELETE, too, carries the whole entity."""
    operation = OPERATIONS.parse(message.operation, field="mutation.operation")
    return Mutation(operation, versioned_in(message, "entity").entity)
