"""What a client makes of what a server sends, also of what only a later release knows."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest

from authz.client import InactiveReason, Reason
from authz.client.explanations import explanation_of
from authz.client.plans import plan_of
from authz.client.questions import answer_of
from authz.domain.errors import InvalidArgumentError
from authz.domain.explanation import ChangeKind
from authz.v1 import audit_pb2, privacy_pb2
from authz.v1 import authorization_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from authz.wire.audit import parse_change
from authz.wire.changes import parse_logged_mutation
from authz.wire.exports import parse_export_item


def test_an_answer_has_members_of_enums_and_datetimes() -> None:
    message = pb.CheckResponse(
        reason=pb.REASON_MEMBERSHIP_NOT_EFFECTIVE, inactive_reason=pb.INACTIVE_REASON_SUSPENDED
    )
    message.valid_until.FromJsonString("2100-07-01T00:00:00.000001Z")
    answer = answer_of(message)
    assert answer.reason is Reason.MEMBERSHIP_NOT_EFFECTIVE
    assert answer.inactive_reason is InactiveReason.SUSPENDED
    assert answer.valid_until == dt.datetime(2100, 7, 1, microsecond=1, tzinfo=dt.UTC)
    assert answer_of(pb.CheckResponse(reason=pb.REASON_ROLE_GRANT)).inactive_reason == ""


@pytest.mark.parametrize("allowed", [True, False])
def test_an_answer_for_a_reason_of_a_later_release_is_still_an_answer(allowed: bool) -> None:
    message = pb.CheckResponse(allowed=allowed)
    message.reason, message.inactive_reason = 17, 18  # type: ignore[assignment]  # numbers of a later release
    answer = answer_of(message)
    assert (bool(answer), answer.reason, answer.inactive_reason) == (allowed, "UNKNOWN_17", "UNKNOWN_18")


def test_an_explanation_has_members_of_enums_too() -> None:
    message = pb.ExplainResponse(
        memberships=[pb.ExplainedMembership(scope={"course_id": "algebra"}, status=17)],  # type: ignore[arg-type]
        nearest_grants=[{"changes": [{"kind": pb.CHANGE_KIND_ROLE}, {"kind": 17}]}],  # type: ignore[list-item]
    )
    told = explanation_of(message)
    assert told.memberships[0].status == "UNKNOWN_17"
    role, unknown = told.nearest_grants[0]
    assert role.kind is ChangeKind.ROLE
    assert unknown.kind == "UNKNOWN_17"
    assert (role.at, told.allowed_from) == (None, None)


OWNER = pb.Comparison(field="owner", operator=pb.COMPARISON_OPERATOR_EQUALS, text="user:maya")
LATER = {
    "a predicate": pb.Predicate(),
    "a field": pb.Predicate(comparison=pb.Comparison(field="colour", operator=OWNER.operator, text="red")),
    "a kind of value": pb.Predicate(comparison=pb.Comparison(field="owner", operator=OWNER.operator)),
    "a kind of offset": pb.Predicate(
        comparison=pb.Comparison(field="created_at", operator=pb.COMPARISON_OPERATOR_MORE_THAN)
    ),
}


@pytest.mark.parametrize("predicate", LATER.values(), ids=LATER)
def test_a_plan_with_a_condition_of_a_later_release_is_refused(predicate: pb.Predicate) -> None:
    parts = pb.Predicates(parts=[pb.Predicate(comparison=OWNER), predicate])
    for each in (predicate, pb.Predicate(all_of=parts), pb.Predicate(any_of=parts)):
        group = pb.PlanGroup(course_ids=["algebra"], predicate=each)
        message = pb.PlanResourcesResponse(kind=pb.PLAN_KIND_CONDITIONAL, groups=[group])
        with pytest.raises(InvalidArgumentError, match=r"predicate .*; upgrade the client"):
            plan_of(message, "notebook")


RECEIVED: dict[str, tuple[Callable[[Any], object], Any]] = {
    "an item of an export": (parse_export_item, privacy_pb2.ExportItem()),
    "a record of an export": (
        parse_export_item,
        privacy_pb2.ExportItem(record={"relation": privacy_pb2.EXPORT_RELATION_ABOUT}),  # type: ignore[arg-type]
    ),
    "a change of a watch": (parse_logged_mutation, dpb.Mutation(operation=dpb.OPERATION_CREATE)),
    "a change of the audit trail": (
        parse_change,
        audit_pb2.LoggedChange(operation=dpb.OPERATION_CREATE, after=audit_pb2.Record()),
    ),
}


@pytest.mark.parametrize(("read", "message"), RECEIVED.values(), ids=list(RECEIVED))
def test_what_is_of_a_kind_of_a_later_release_is_refused(read: Callable[[Any], object], message: Any) -> None:
    """An item of an export would else be taken for its end."""
    with pytest.raises(InvalidArgumentError, match="upgrade the client"):
        read(message)
