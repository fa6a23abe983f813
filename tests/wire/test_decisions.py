"""Answers as messages: what was encoded for one verdict is never sent for another."""

from __future__ import annotations

import pytest

from authz.domain.decisions import Decision, Reason, Rule, Verdict
from authz.domain.effective_roles import InactiveReason
from authz.domain.facts import FACTS_BY_NAME
from authz.v1 import authorization_pb2 as pb
from authz.wire.decisions import fill_check_response

RULE = Rule("student", "*", "notebook", "read", "own & published", "allow", "default.csv:7")
EXPECTED_RULE = pb.Rule(
    role="student",
    scope="*",
    type="notebook",
    action="read",
    condition="own & published",
    effect="allow",
    source="default.csv:7",
)


def filled(verdict: Verdict, version: str = "1", checked_at: str = "t") -> pb.CheckResponse:
    response = pb.CheckResponse()
    decision = Decision(verdict, version, 1)
    fill_check_response(response, decision, text="No.", checked_at=checked_at, decision_id="d")
    return response


@pytest.mark.parametrize("version", ["1", "2"])
@pytest.mark.parametrize("token", ["t", "u"])
def test_equal_verdicts_are_sent_with_the_version_and_the_state_of_each_answer(
    version: str, token: str
) -> None:
    answer = filled(Verdict(True, Reason.ROLE_GRANT, RULE), version, token)
    assert (answer.allowed, answer.reason, answer.rule) == (True, pb.REASON_ROLE_GRANT, EXPECTED_RULE)
    assert (answer.policy_version, answer.checked_at.token, answer.decision_id) == (version, token, "d")
    assert not answer.unmet_facts
    assert not answer.HasField("valid_until")


def test_verdicts_that_differ_in_one_part_differ_in_that_part() -> None:
    unmet = FACTS_BY_NAME["own"].bit
    near = filled(Verdict(False, Reason.CONDITION_NOT_MET, RULE, unmet))
    nearer = filled(Verdict(False, Reason.CONDITION_NOT_MET, RULE, unmet | FACTS_BY_NAME["published"].bit))
    assert (list(near.unmet_facts), list(nearer.unmet_facts)) == (["own"], ["own", "published"])
    states = {
        filled(Verdict(False, Reason.MEMBERSHIP_NOT_EFFECTIVE, inactive_reason=why)).inactive_reason
        for why in InactiveReason
    }
    assert states == {pb.InactiveReason.Value(f"INACTIVE_REASON_{why}") for why in InactiveReason}
    assert not filled(Verdict(False, Reason.NOT_A_MEMBER)).HasField("rule")
