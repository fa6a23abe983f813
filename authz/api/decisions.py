"""Makes the entries of the decision log from calls."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import msgspec

from authz.access.permission import NO_RIGHTS
from authz.access.principal import Principal
from authz.api.call import AnsweredQuestion, Call, Method, Outcome, new_ids
from authz.audit.decision_log import DecisionLog
from authz.domain.decision_log import REFUSED_CODES, UNLOGGED_WRITES, DecisionEntry
from authz.domain.decisions import AI_PROCESS
from authz.domain.facts import PURPOSE_AI_RESPONSE
from authz.domain.instants import US_PER_S, Instant
from authz.wire.named import action_named, resource_named, subject_named

MAX_UNAUTHENTICATED_PER_S = 10
"""Maximum entries in a second of the clock, in each process. The metrics of calls count all."""


class DecisionRecorder:
    """Makes the entries of calls.

    Logs all denials, all questions about processing by an AI provider, all privileged calls (which return
    what a check does not), all calls that change what the change log does not have, and all calls refused
    because of the caller. Samples the other allowed decisions.
    Of calls without an authenticated caller, logs at most `MAX_UNAUTHENTICATED_PER_S`: anybody can make them.
    """

    def __init__(self, log: DecisionLog, now: Callable[[], Instant]) -> None:
        self._log = log
        self._now = now
        self._ids = new_ids()
        self._second = self._unauthenticated = 0

    def record(self, call: Call, request: object, outcome: Outcome, duration_s: float) -> None:
        """Log the decisions of a call that is over, or the call itself. The entry of a call that an error has
        ended says that it was allowed: see `AuthzError.ended_call`."""
        method, decided, code = call.method, call.decided, outcome.code
        if decided:
            keeps_all = method.is_privileged or self._log.samples_all
            if kept := decided if keeps_all else [each for each in decided if self._keeps(each)]:
                logged = _LoggedCall(call.principal, method, call.request_id, self._now(), code, duration_s)
                for each in kept:
                    self._log.put(partial(_decision_entry, logged, each, each.id or next(self._ids)))
                return
        is_unauthenticated = call.principal.caller is None and call.rights is NO_RIGHTS
        is_ended = outcome.ended_call
        is_refused = bool(call.refusal) or is_unauthenticated or (code in REFUSED_CODES and not is_ended)
        if not (is_refused or (self._keeps_call(method, is_ended=is_ended) and not decided)):
            return
        at = self._now()
        if is_unauthenticated and not self._has_room(at):
            return
        logged = _LoggedCall(call.principal, method, call.request_id, at, code, duration_s)
        entry = msgspec.structs.replace(
            _call_entry(logged, next(self._ids)),
            subject=subject_named(request),
            action=action_named(request),
            resource=resource_named(request),
            allowed=not is_refused,
            reason=outcome.reason,
        )
        self._log.put(lambda: entry)

    def _keeps_call(self, method: Method, *, is_ended: bool) -> bool:
        return (
            is_ended
            or method.is_privileged
            or method.short_name in UNLOGGED_WRITES
            or (method.is_decision and self._log.keeps_questions)
        )

    def _has_room(self, at: Instant) -> bool:
        """Whether one more call without an authenticated caller is logged in this second."""
        if (second := at // US_PER_S) != self._second:
            self._second, self._unauthenticated = second, 0
        self._unauthenticated += 1
        return self._unauthenticated <= MAX_UNAUTHENTICATED_PER_S

    def _keeps(self, decided: AnsweredQuestion) -> bool:
        question = decided.question
        return (
            self._log.samples()
            or not decided.decision.allowed
            or question.action == AI_PROCESS
            or question.purpose == PURPOSE_AI_RESPONSE
        )


class _LoggedCall(msgspec.Struct, frozen=True, gc=False):
    """What all entries of a call have in common."""

    principal: Principal
    method: Method
    request_id: str
    at: Instant
    code: str
    duration_s: float


def _call_entry(call: _LoggedCall, decision_id: str) -> DecisionEntry:
    principal = call.principal
    return DecisionEntry(
        at=call.at,
        decision_id=decision_id,
        method=call.method.short_name,
        code=call.code,
        caller="unauthenticated" if principal.caller is None else str(principal.caller),
        person="" if principal.on_behalf_of is None else str(principal.on_behalf_of),
        request_id=call.request_id,
        allowed=False,
        duration_us=round(call.duration_s * US_PER_S),
    )


def _decision_entry(call: _LoggedCall, answered: AnsweredQuestion, decision_id: str) -> DecisionEntry:
    question, decision, verdict = answered.question, answered.decision, answered.decision.verdict
    ref, rule = question.resource, verdict.rule
    return msgspec.structs.replace(
        _call_entry(call, decision_id),
        subject=str(question.subject),
        action=question.action,
        resource=f"{ref.type}:{ref.id}" if ref.id else ref.type,
        course_id=question.stated_course_id or "",
        session_id=question.stated_session_id or "",
        purpose=question.purpose,
        allowed=verdict.allowed,
        reason=verdict.reason,
        role="" if rule is None else rule.role,
        rule="" if rule is None else rule.source,
        policy_version=decision.policy_version,
        course_policy_version=decision.course_policy_version,
        revision=decision.revision,
    )
