"""Writes and imports between protobuf and the domain."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TypeVar

from authz.domain.errors import AuthzError, InvalidArgumentError, malformed, result_or_error
from authz.domain.ids import PLATFORM, Scope, Subject, parse_id
from authz.domain.mutations import Mutation, Precondition, WriteRequest
from authz.domain.origin import MAX_REASON_LENGTH, Origin
from authz.v1 import directory_pb2 as pb
from authz.wire.entities import parse_mutation, parse_precondition
from authz.wire.values import parse_scope, parse_subject

MessageT = TypeVar("MessageT", pb.Mutation, pb.Precondition)
ParsedT = TypeVar("ParsedT")


def parse_mutations(request: pb.WriteRequest) -> Iterator[Mutation]:
    """The mutations of a write in order. The error for one names its position."""
    return _parse_each("mutations", request.mutations, parse_mutation)


def parse_preconditions(request: pb.WriteRequest) -> Iterator[Precondition]:
    """Likewise its preconditions."""
    return _parse_each("preconditions", request.preconditions, parse_precondition)


def write_of(
    request: pb.WriteRequest,
    mutations: Iterable[Mutation],
    preconditions: Iterable[Precondition],
    origin: Origin,
) -> WriteRequest:
    """A write of mutations and preconditions that were parsed of it."""
    key = request.idempotency_key
    return WriteRequest(
        mutations=tuple(mutations),
        preconditions=tuple(preconditions),
        idempotency_key=parse_id(key, field="idempotency_key") if key else "",
        origin=origin,
    )


def parse_import(request: pb.ImportRequest) -> Iterator[Mutation | AuthzError]:
    """The mutations of one message of an import in order, each malformed one as its error."""
    return (result_or_error(partial(parse_mutation, each)) for each in request.mutations)


def parse_member(request: pb.RemoveMemberRequest) -> tuple[Subject, Scope]:
    """Whom to remove, and from which course or session."""
    subject = parse_subject(request, "subject", field="subject")
    scope = parse_scope(request, "scope", field="scope")
    if scope == PLATFORM:
        raise malformed("scope", "is the platform; name a course or a session")
    return subject, scope


def parse_reason(text: str) -> str:
    """Why something is written, as the change log keeps it."""
    if len(text) > MAX_REASON_LENGTH or not text.isprintable():
        problem = f"has {len(text)} characters; at most {MAX_REASON_LENGTH} printable ones are kept"
        raise malformed("reason", problem)
    return text


def _parse_each(
    field: str, messages: Iterable[MessageT], parse: Callable[[MessageT], ParsedT]
) -> Iterator[ParsedT]:
    for position, message in enumerate(messages):
        try:
            yield parse(message)
        except InvalidArgumentError as error:
            raise InvalidArgumentError(
                error.reason,
                f"{field}[{position}]: {error.message}",
                **(error.metadata | {"position": str(position)}),
            ) from None
