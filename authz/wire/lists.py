"""The lists of resources and of subjects, and plans, between protobuf and the domain."""

from __future__ import annotations

from collections.abc import Iterable

from authz.domain.decisions import Question
from authz.domain.errors import malformed
from authz.domain.ids import PLATFORM
from authz.domain.instants import Instant
from authz.domain.lists import ListedResource, ListedSubject, PlanGroup, PlanKind, ResourceQuery
from authz.domain.predicates import AllOf, AnyOf, Comparison, Operator, Predicate, ResourceField
from authz.v1 import authorization_pb2 as pb
from authz.v1 import common_pb2
from authz.wire.decisions import parse_action, parse_check, parse_purpose, rule_message
from authz.wire.fields import parse_type
from authz.wire.values import (
    WireEnum,
    duration_message,
    parse_scope,
    parse_subject,
    parse_time,
    scope_message,
    subject_message,
)

PLAN_KINDS = WireEnum(pb.PlanKind.DESCRIPTOR, PlanKind)
_OPERATORS = WireEnum(pb.ComparisonOperator.DESCRIPTOR, Operator)
_FIELDS = {field.value: field for field in ResourceField}
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


def parse_plan_resources(m: pb.PlanResourcesRequest) -> ResourceQuery:
    """The query of a PlanResources, with its one type."""
    return parse_query(m, (parse_type(m.type, field="type"),))


def group_message(group: PlanGroup) -> pb.PlanGroup:
    """A group of a plan as a message."""
    predicate = None if group.predicate is None else _predicate_message(group.predicate)
    return pb.PlanGroup(course_ids=group.course_ids, session_ids=group.session_ids, predicate=predicate)


def _predicate_message(predicate: Predicate) -> pb.Predicate:
    match predicate:
        case Comparison():
            return pb.Predicate(comparison=_comparison_message(predicate))
        case AllOf(parts):
            return pb.Predicate(all_of=pb.Predicates(parts=map(_predicate_message, parts)))
        case AnyOf(parts):
            return pb.Predicate(any_of=pb.Predicates(parts=map(_predicate_message, parts)))


def _comparison_message(comparison: Comparison) -> pb.Comparison:
    message = pb.Comparison(
        field=comparison.field,
        operator=_OPERATORS.number(comparison.operator),
        negated=comparison.negated,
    )
    match comparison.value:
        case bool(flag):
            message.flag = flag
        case str(text):
            message.text = text
    if comparison.from_now_us is not None:
        message.from_now.CopyFrom(duration_message(comparison.from_now_us))
    return message


def parse_group(m: pb.PlanGroup) -> PlanGroup:
    """A group of a plan. Raises `InvalidArgumentError` for a predicate that this release does not know."""
    predicate = parse_predicate(m.predicate) if m.HasField("predicate") else None
    return PlanGroup(tuple(m.course_ids), tuple(m.session_ids), predicate)


def parse_predicate(m: pb.Predicate) -> Predicate:
    """A predicate. Raises as `parse_group`."""
    match m.WhichOneof("predicate"):
        case "all_of":
            return AllOf(tuple(map(parse_predicate, m.all_of.parts)))
        case "any_of":
            return AnyOf(tuple(map(parse_predicate, m.any_of.parts)))
        case "comparison":
            return _parse_comparison(m.comparison)
        case _:
            raise malformed("predicate", "is none that this release knows; upgrade the client")


def _parse_comparison(m: pb.Comparison) -> Comparison:
    if m.field not in _FIELDS:
        raise malformed("predicate", f"compares the unknown field `{m.field}`; upgrade the client")
    operator, compared_with = _OPERATORS.parse(m.operator, field="predicate.operator"), m.WhichOneof("value")
    if compared_with is None and operator is not Operator.ABSENT:
        # Compared with nothing, a column without a value would satisfy it.
        problem = f"compares `{m.field}` with a value of an unknown kind; upgrade the client"
        raise malformed("predicate", problem)
    return Comparison(
        _FIELDS[m.field],
        operator,
        getattr(m, compared_with) if compared_with in ("text", "flag") else None,
        m.from_now.ToMicroseconds() if compared_with == "from_now" else None,
        m.negated,
    )
