"""What a client makes of what a server sends, also of what only a later release knows."""

from __future__ import annotations

import datetime as dt

import pytest

from authz.client import InactiveReason, Reason
from authz.client.explanations import explanation_of
from authz.client.questions import answer_of
from authz.domain.explanation import ChangeKind
from authz.v1 import authorization_pb2 as pb


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
