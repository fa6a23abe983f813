"""A change, as a client receives it."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from authz.domain.ids import Subject
from authz.domain.instants import Instant
from authz.domain.mutations import Mutation
from authz.v1 import directory_pb2, watch_pb2
from authz.wire.changes import parse_logged_mutation
from authz.wire.values import parse_subject_message


class WatchedChange(msgspec.Struct, frozen=True, kw_only=True):
    """The changes of one write, or a part of them.

    A deletion carries the entity as it last was. `erasing` has the subjects whose erasure begins: delete what
    you keep of them. A write is complete only with the part that `is_last`: only
    then is `token` valid to resume from in another watch.
    """

    mutations: tuple[Mutation, ...]
    token: str
    committed_at: Instant
    actor: str
    reason: str
    is_last: bool
    erasing: tuple[Subject, ...] = ()


def watched_of(change: watch_pb2.WatchChange, mutations: Iterable[directory_pb2.Mutation]) -> WatchedChange:
    """The change of a message, with those of its mutations."""
    return WatchedChange(
        mutations=tuple(parse_logged_mutation(message) for message in mutations),
        token=change.written_at.token,
        committed_at=change.committed_at.ToMicroseconds(),
        actor=change.actor,
        reason=change.reason,
        is_last=change.last,
        erasing=tuple(parse_subject_message(each, field="erasing") for each in change.erasing),
    )
