"""The lists of resources and of subjects between protobuf and the domain."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from authz.domain.decisions import Question
from authz.domain.errors import malformed
from authz.domain.ids import PLATFORM
from authz.domain.instants import Instant
from authz.domain.lists import ListedResource, ListedSubject, ResourceQuery
from authz.domain.ports import Page
from authz.v1 import authorization_pb2 as pb
from authz.v1 import common_pb2
from authz.wire.decisions import parse_action, parse_check, parse_purpose, rule_message
from authz.wire.fields import parse_type
from authz.wire.filters import DEFAULT_PAGE_SIZE
from authz.wire.values import parse_scope, parse_subject, parse_time, scope_message, subject_message

_ANYBODY = common_pb2.Subject(type=common_pb2.SUBJECT_TYPE_USER, id="-")
"""Stands for the subject in a question that is put for many."""


def parse_list_resources(m: pb.ListResourcesRequest) -> ResourceQuery:
    """The query of a ListResources. Its types are empty for all that know the action."""
    return parse_query(m, tuple(dict.fromkeys(parse_type(name, field="types") for name in m.types)))


def parse_query(
    m: pb.ListResourcesRequest | pb.PlanResourcesRequest, types: tuple[str, ...]
) -> ResourceQuery:
    """What a subject may act upon, of some types."""
    within = parse_scope(m, "scope", field="scope") if m.HasField("scope") else None
    if within == PLATFORM:
        raise malformed("scope", "is the platform; name a course or a session, or none for everywhere")
    return ResourceQuery(
        parse_subject(m, "subject", field="subject"),
        parse_action(m.action),
        types,
        within,
        parse_purpose(m.purpose),
    )


def parse_list_subjects(m: pb.ListSubjectsRequest) -> tuple[Question, Instant | None]:
    """The question of a ListSubjects, put for a subject that stands for all, and the time as of which to
    decide it, if any is given."""
    resource = m.resource if m.HasField("resource") else None
    question = parse_check(
        pb.CheckRequest(subject=_ANYBODY, action=m.action, resource=resource, purpose=m.purpose)
    )
    return question, parse_time(m, "as_of", field="as_of")


def parse_list_page(m: Any) -> Page:
    """The page that a request asks for."""
    return Page(m.page_size or DEFAULT_PAGE_SIZE, m.page_token)


def resources_message(found: Iterable[ListedResource]) -> pb.ListResourcesResponse:
    """A page of resources."""
    response = pb.ListResourcesResponse()
    add = response.resources.add
    for each in found:
        message = add()  # setting fields takes half as long as passing them
        message.type, message.id = each.type, each.id
        if each.course_id is not None:
            message.course_id = each.course_id
        if each.session_id is not None:
            message.session_id = each.session_id
    return response


def add_subject(response: pb.ListSubjectsResponse, found: ListedSubject) -> None:
    """Add a listed subject to its page."""
    response.subjects.add(
        subject=subject_message(found.subject),
        role=found.role,
        scope=scope_message(found.scope),
        membership_role=found.grant_role,
        rule=rule_message(found.rule),
    )
