"""Plans between protobuf and the domain."""

from __future__ import annotations

from authz.domain.errors import malformed
from authz.domain.lists import PlanGroup, PlanKind, ResourceQuery
from authz.domain.predicates import AllOf, AnyOf, Comparison, Operator, Predicate, ResourceField
from authz.v1 import authorization_pb2 as pb
from authz.wire.fields import parse_type
from authz.wire.lists import parse_query
from authz.wire.values import WireEnum, duration_message

PLAN_KINDS = WireEnum(pb.PlanKind.DESCRIPTOR, PlanKind)
_OPERATORS = WireEnum(pb.ComparisonOperator.DESCRIPTOR, Operator)
_FIELDS = {field.value: field for field in ResourceField}


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
    compared_with = m.WhichOneof("value")
    return Comparison(
        _FIELDS[m.field],
        _OPERATORS.parse(m.operator, field="predicate.operator"),
        getattr(m, compared_with) if compared_with in ("text", "flag") else None,
        m.from_now.ToMicroseconds() if compared_with == "from_now" else None,
        m.negated,
    )
