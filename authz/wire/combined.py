"""Requests that combine several questions, from protobuf."""

from __future__ import annotations

from authz.domain.decisions import CREATE_ACTION, SESSION_TYPE, Question
from authz.domain.errors import InvalidArgumentError
from authz.domain.ids import ResourceRef, parse_id
from authz.v1 import authorization_pb2 as pb
from authz.wire.decisions import parse_check
from authz.wire.values import missing, parse_subject

_ANY = "read"
"""Stands for the actions that a source is asked about."""


def parse_session(m: pb.AuthorizeSessionRequest) -> Question:
    """The question about a session. Its action stands for every action of the type."""
    subject = parse_subject(m, "subject", field="subject")
    if not m.session_id:
        raise missing("session_id")
    ref = ResourceRef(SESSION_TYPE, parse_id(m.session_id, field="session_id"))
    return Question(subject, CREATE_ACTION, ref)


def parse_sources(m: pb.AuthorizeSourcesRequest) -> list[Question | InvalidArgumentError]:
    """A question for each source, or what is wrong with it. Raises `InvalidArgumentError` without any."""
    parse_subject(m, "subject", field="subject")
    if not m.sources:
        raise missing("sources")
    return [_source(m, number) for number in range(len(m.sources))]


def _source(m: pb.AuthorizeSourcesRequest, number: int) -> Question | InvalidArgumentError:
    try:
        return parse_check(pb.CheckRequest(subject=m.subject, action=_ANY, resource=m.sources[number]))
    except InvalidArgumentError as error:
        return error
