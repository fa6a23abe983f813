"""Answers as messages: what was encoded for one verdict is never sent for another."""

from __future__ import annotations

import pytest

from authz.domain.decisions import Decision, Reason, Rule, Verdict
from authz.domain.effective_roles import InactiveReason
from authz.domain.facts import FACTS_BY_NAME
from authz.domain.instants import MAX_INSTANT, Instant
from authz.v1 import authorization_pb2 as pb
from authz.wire.decisions import actions_message, fill_check_response

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


ALLOWED, DENIED = Verdict(True, Reason.ROLE_GRANT, RULE), Verdict(False, Reason.NO_RULE)


@pytest.mark.parametrize(
    ("until", "sent_us"), [(None, None), (7, 7), (MAX_INSTANT, MAX_INSTANT), (MAX_INSTANT + 1, None)]
)
def test_an_answer_is_valid_until_a_time_that_can_be_sent(until: Instant | None, sent_us: int | None) -> None:
    response = pb.CheckResponse()
    decision = Decision(DENIED, "1", 1, until, "3")
    fill_check_response(response, decision, text="No.", checked_at="t", decision_id="d")
    sent = response.valid_until.ToMicroseconds() if response.HasField("valid_until") else None
    assert (sent, response.message, response.course_policy_version) == (sent_us, "No.", "3")
    assert not filled(ALLOWED).message


def test_the_actions_are_valid_until_the_first_of_their_answers_changes() -> None:
    answers = {
        "read": Decision(ALLOWED, "2", 1, 9, "3"),
        "update": Decision(DENIED, "2", 1, 5, "3"),
        "delete": Decision(DENIED, "2", 1, None, "3"),
    }
    message = actions_message(answers, token="t", policy_version="2")
    told = {each.action: (each.allowed, each.reason) for each in message.actions}
    no_rule = (False, pb.REASON_NO_RULE)
    assert told == {"read": (True, pb.REASON_ROLE_GRANT), "update": no_rule, "delete": no_rule}
    assert (message.checked_at.token, message.policy_version, message.course_policy_version) == (
        "t",
        "2",
        "3",
    )
    assert message.valid_until.ToMicroseconds() == 5
