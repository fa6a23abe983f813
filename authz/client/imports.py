"""Divides an import into messages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

from authz.client.arguments import as_mutation, message_of
from authz.domain.entities import MembershipKey
from authz.domain.ids import Subject
from authz.domain.mutations import MAX_MUTATIONS_PER_WRITE, Mutation
from authz.v1 import directory_pb2
from authz.wire.entities import mutation_message

Progress: TypeAlias = Callable[[int], None]


def import_messages(
    mutations: Iterable[Mutation], reason: str, progress: Progress
) -> Iterator[directory_pb2.ImportRequest]:
    """The messages that import mutations. Calls `progress` with the number sent so far."""
    sent = 0
    for chunk in _chunks(map(as_mutation, mutations)):
        yield message_of(
            directory_pb2.ImportRequest, mutations=[*map(mutation_message, chunk)], reason=reason
        )
        sent += len(chunk)
        progress(sent)


def until(is_stopped: Callable[[], bool], mutations: Iterable[Mutation]) -> Iterator[Mutation]:
    """The mutations until a stop. It divides no memberships of one subject that follow each other: only the
    first of them could be the end of its role before the other gives the next one."""
    before: Subject | None = None
    for mutation in mutations:
        member = _member(mutation)
        if (member is None or member != before) and is_stopped():
            return
        yield mutation
        before = member


def _chunks(mutations: Iterable[Mutation]) -> Iterator[list[Mutation]]:
    """Up to `MAX_MUTATIONS_PER_WRITE` mutations each. Memberships of one subject that follow each other are
    in one chunk: a change of role that two messages divide would end the subject's shares."""
    chunk: list[Mutation] = []
    for mutation in mutations:
        if len(chunk) == MAX_MUTATIONS_PER_WRITE:
            end = len(chunk)
            while end and (member := _member(mutation)) and _member(chunk[end - 1]) == member:
                end -= 1
            end = end or len(chunk)
            yield chunk[:end]
            chunk = chunk[end:]
        chunk.append(mutation)
    if chunk:
        yield chunk


def _member(mutation: Mutation) -> Subject | None:
    key = mutation.key
    return key.subject if isinstance(key, MembershipKey) else None
