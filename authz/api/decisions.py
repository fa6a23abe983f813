"""Makes the entries of the decision log from calls."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from authz.access.permission import NO_RIGHTS
from authz.api.call import AnsweredQuestion, Call, new_ids
from authz.audit.decision_log import DecisionLog
from authz.domain.decision_log import REFUSED_CODES, UNLOGGED_WRITES, DecisionEntry
from authz.domain.facts import PURPOSE_AI_RESPONSE
from authz.domain.instants import US_PER_S, Instant
from authz.wire.named import action_named, resource_named, subject_named

_AI_PROCESS = "ai_process"
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

    def record(
        self, call: Call, request: object, *, code: str, reason: str, duration_s: float, is_ended: bool
    ) -> None:
        """Log the decisions of a call that is over, or the call itself. For `is_ended` see
        `AuthzError.ended_call`: the entry says that such a call was allowed."""
        method = call.method
        kept = [each for each in call.decided or () if method.is_privileged or self._keeps(each)]
        is_unauthenticated = call.principal.caller is None and call.rights is NO_RIGHTS
        is_refused = is_unauthenticated or (code in REFUSED_CODES and not is_ended)
        is_kept = (
            is_ended
            or method.is_privileged
            or method.short_name in UNLOGGED_WRITES
            or (method.is_decision and self._log.keeps_questions)
        )
        if not (kept or is_refused or (is_kept and not call.decided)):
            return
        at = self._now()
        if is_unauthenticated and not self._has_room(at):
            return
        entry = _entry(call, at, code, round(duration_s * US_PER_S), allowed=not is_refused)
        for each in kept:
            self._log.put(_with_decision(entry, each, each.id or next(self._ids)))
        if not kept:
            asked = {
                "subject": subject_named(request),
                "action": action_named(request),
                "resource": resource_named(request),
            }
            self._log.put(msgspec.structs.replace(entry, decision_id=next(self._ids), reason=reason, **asked))

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
            or question.action == _AI_PROCESS
            or question.purpose == PURPOSE_AI_RESPONSE
        )


def _entry(call: Call, at: Instant, code: str, duration_us: int, *, allowed: bool) -> DecisionEntry:
    """The fields that all entries of a call have in common."""
    principal = call.principal
    return DecisionEntry(
        at=at,
        decision_id="",
        method=call.method.short_name,
        code=code,
        caller="unauthenticated" if principal.caller is None else str(principal.caller),
        person="" if principal.on_behalf_of is None else str(principal.on_behalf_of),
        request_id=call.request_id,
        allowed=allowed,
        duration_us=duration_us,
    )


def _with_decision(entry: DecisionEntry, decided: AnsweredQuestion, decision_id: str) -> DecisionEntry:
    question, decision, verdict = decided.question, decided.decision, decided.decision.verdict
    ref, rule = question.resource, verdict.rule
    return msgspec.structs.replace(
        entry,
        decision_id=decision_id,
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
