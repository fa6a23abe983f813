"""Explanations between protobuf and the domain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from authz.domain.decisions import Question
from authz.domain.explanation import Change, ChangeKind, Explanation
from authz.domain.facts import FACTS, Fact
from authz.domain.ids import Scope
from authz.domain.instants import Instant, format_duration, format_instant
from authz.domain.kinds.membership import MembershipStatus
from authz.domain.trace import MembershipTrace
from authz.v1 import authorization_pb2 as pb
from authz.v1 import common_pb2
from authz.wire.decisions import (
    INACTIVE_REASONS,
    fill_check_response,
    parse_action,
    parse_question,
    rule_message,
)
from authz.wire.values import WireEnum, parse_time, scope_message, time_message

STATUSES = WireEnum(common_pb2.MembershipStatus.DESCRIPTOR, MembershipStatus)
CHANGE_KINDS = WireEnum(pb.ChangeKind.DESCRIPTOR, ChangeKind)


def parse_explain(m: pb.ExplainRequest) -> tuple[Question, Instant | None]:
    """The question of an Explain, and the time as of which to decide it, if any is given."""
    return parse_question(m, parse_action(m.action)), parse_time(m, "as_of", field="as_of")


def explanation_message(
    explanation: Explanation, unregistered: Sequence[Scope], *, checked_at: str, decision_id: str
) -> pb.ExplainResponse:
    """An explanation as a message, with the scopes of its question that are not registered."""
    trace, now, suspension = explanation.trace, explanation.decided_at, explanation.suspension
    is_of_account = suspension is not None and suspension.is_of_account(now)
    message = pb.ExplainResponse(
        message=explanation.message,
        decided_at=time_message(now),
        scopes=map(scope_message, trace.scopes),
        memberships=map(_membership_message, trace.memberships),
        account_suspended=is_of_account,
        account_suspended_until=time_message(suspension.until) if suspension and is_of_account else None,
        facts=()
        if trace.facts is None
        else [_fact_message(each, trace.facts, explanation.inputs) for each in FACTS],
        rules=[
            pb.ExplainedRule(rule=rule_message(each.rule), matches=each.matches, unmet_facts=each.unmet_facts)
            for each in trace.rules
        ],
        nearest_grants=[
            pb.NearestGrant(changes=[_change_message(change, now) for change in changes])
            for changes in explanation.nearest_grants
        ],
        allowed_from=time_message(explanation.allowed_from),
        restricted=suspension is not None and suspension.is_restriction,
        unregistered_scopes=map(scope_message, unregistered),
    )
    fill_check_response(
        message.answer,
        explanation.decision,
        text=explanation.message,
        checked_at=checked_at,
        decision_id=decision_id,
    )
    return message


def _membership_message(each: MembershipTrace) -> pb.ExplainedMembership:
    terms = each.terms
    return pb.ExplainedMembership(
        scope=scope_message(each.scope),
        role=terms.role,
        status=STATUSES.number(terms.status),
        starts_at=time_message(terms.starts_at),
        ends_at=time_message(terms.ends_at),
        suspended_until=time_message(terms.suspended_until),
        gives=each.gives,
        inactive_reason=INACTIVE_REASONS.number(each.inactive_reason),
        counts=each.counts,
    )


def _fact_message(fact: Fact, facts: int, inputs: Any) -> pb.ExplainedFact:
    return pb.ExplainedFact(
        name=fact.name,
        holds=bool(facts & fact.bit),
        meaning=fact.meaning,
        inputs=[pb.FactInput(name=name, value=_text(name, inputs.get(name))) for name in fact.computed_from],
    )


def _text(name: str, value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return format_duration(value) if name.endswith("edit_window") else format_instant(value)
    return str(value)


def _change_message(change: Change, now: Instant) -> pb.NearestChange:
    return pb.NearestChange(
        text=change.text(now),
        kind=CHANGE_KINDS.number(change.kind),
        scope=None if change.scope is None else scope_message(change.scope),
        roles=change.roles,
        fact=change.fact,
        holds=change.holds and change.kind is ChangeKind.FACT,
        purpose=change.purpose,
        at=time_message(change.at),
    )
