"""What a caller learns about a decision, and the id under which it is logged."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import msgspec
import structlog
from prometheus_client import Counter

from authz.api.call import AnsweredQuestion, Call, new_ids
from authz.api.permissions import LEARN_REASONS
from authz.api.record import is_debug_enabled
from authz.domain.decision_log import EVERY_ACTION
from authz.domain.decisions import REVEALING_REASONS, Decision, Question, Reason, Verdict
from authz.domain.explanation import message_for
from authz.domain.tokens import ConsistencyToken
from authz.engine.consistency import ConsistencyGate
from authz.telemetry.metrics import DECISIONS
from authz.v1 import authorization_pb2 as pb
from authz.v1 import common_pb2
from authz.wire.decisions import fill_check_response

log = structlog.get_logger()

_NO_ROLE_THERE = Verdict(False, Reason.NOT_A_MEMBER)
_MAX_CACHED = 4096


def token_message(gate: ConsistencyGate, state: ConsistencyToken) -> common_pb2.ConsistencyToken:
    """The token of a state as a message."""
    return common_pb2.ConsistencyToken(token=gate.token_of(state))


def redacted(decision: Decision, call: Call) -> Decision:
    """What the caller may know: not whether a resource exists or where it is, without the right to."""
    if decision.reason not in REVEALING_REASONS or call.rights.has(LEARN_REASONS):
        return decision
    # The version of a course's policy would tell that the resource is in that course.
    return msgspec.structs.replace(decision, verdict=_NO_ROLE_THERE, course_policy_version="")


def note_actions(call: Call, question: Question, found: Mapping[str, Decision]) -> None:
    """Note which actions were answered to be allowed; if none, the first of the denials, for every action."""
    if call.decided is None:
        return
    allowed = [(action, each) for action, each in found.items() if each.allowed]
    noted = allowed or [(EVERY_ACTION, each) for each in found.values()][:1]
    for action, decision in noted:
        call.decided.append(AnsweredQuestion(msgspec.structs.replace(question, action=action), decision))


class Answers:
    """Gives each decision an id of its own."""

    def __init__(self) -> None:
        self._ids = new_ids()

    def fill(
        self, response: pb.CheckResponse, call: Call, question: Question, decision: Decision, token: str
    ) -> None:
        """Fill an empty answer. `token` is that of the state."""
        decision_id = self.decision_id(call, question, decision)
        told = redacted(decision, call)
        text = message_for(question.action, told.verdict)
        fill_check_response(response, told, text=text, checked_at=token, decision_id=decision_id)

    def decision_id(self, call: Call, question: Question, decision: Decision) -> str:
        """An id for the decision, which is counted, and logged with it."""
        decision_id = next(self._ids)
        if call.decided is not None:
            call.decided.append(AnsweredQuestion(question, decision, decision_id))
        verdict, type_name = decision.verdict, question.resource.type
        _count_of(verdict.allowed, verdict.reason, type_name, question.action).inc()
        if is_debug_enabled():
            log.debug(
                "decision",
                decision_id=decision_id,
                request_id=call.request_id,
                subject=str(question.subject),
                action=question.action,
                resource=str(question.resource),
                allowed=decision.allowed,
                reason=decision.reason.value,
                policy_version=decision.policy_version,
                course_policy_version=decision.course_policy_version,
                revision=decision.revision,
            )
        return decision_id


@lru_cache(_MAX_CACHED)
def _count_of(allowed: bool, reason: Reason, type_name: str, action: str) -> Counter:
    """The count of such decisions. To find it by its labels takes as long as to find a membership."""
    return DECISIONS.labels(str(allowed).lower(), reason, type_name, action)
