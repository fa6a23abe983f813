"""How an answer came about, told to the end: its trace, where the facts come from, and what would allow."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec

from authz.domain.decisions import CREATE_ACTION, Decision, Reason, Verdict
from authz.domain.effective_roles import InactiveReason, Suspension
from authz.domain.facts import FACTS_BY_NAME
from authz.domain.ids import Scope
from authz.domain.instants import Instant, format_instant
from authz.domain.trace import Trace

_UNITS = ((86_400_000_000, "day"), (3_600_000_000, "hour"), (60_000_000, "minute"), (1_000_000, "second"))


class ChangeKind(StrEnum):
    """What a change is made to."""

    ROLE = "ROLE"
    MEMBERSHIP = "MEMBERSHIP"
    ACCOUNT = "ACCOUNT"
    COURSE_STATE = "COURSE_STATE"
    FACT = "FACT"
    PURPOSE = "PURPOSE"
    STATED_SCOPE = "STATED_SCOPE"
    RESTRICTION = "RESTRICTION"


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One change to what was decided on.

    ROLE: a membership in `scope` that gives any of `roles`, of the lowest rank first. MEMBERSHIP: that in
    `scope` as one of `roles`, which is there, is in effect. ACCOUNT: the account is not suspended.
    RESTRICTION: the processing of the subject's data is not restricted. COURSE_STATE: the course is active.
    FACT: `fact` holds, or not, by `holds`. PURPOSE: the request has `purpose`. STATED_SCOPE: the request
    states no course and no session, or `scope`.
    `at` is when time alone brings the change about, if it does.
    """

    kind: ChangeKind
    scope: Scope | None = None
    roles: tuple[str, ...] = ()
    fact: str = ""
    holds: bool = True
    purpose: str = ""
    inactive_reason: InactiveReason | None = None
    at: Instant | None = None

    def text(self, now: Instant) -> str:
        """The change in words that follow `allowed`."""
        if self.kind is ChangeKind.PURPOSE and not self.purpose:
            return "without a purpose"
        found = _TEXTS[self.kind].format(
            scope=self.scope, roles=_any_of(self.roles), purpose=self.purpose, why=_WHY[self.inactive_reason]
        )
        if self.kind is ChangeKind.FACT:
            meaning = FACTS_BY_NAME[self.fact].meaning
            held = f"if `{self.fact}` held" if self.holds else f"if the gate `{self.fact}` did not hold"
            found = f"{held} ({meaning})"
        if self.at is None:
            return found
        at = f"{format_instant(self.at)} ({_in_words(self.at - now)})"
        return f"{found}, which time alone brings about at {at}"


_TEXTS = {
    ChangeKind.ROLE: "with role {roles} in `{scope}`",
    ChangeKind.MEMBERSHIP: "if the membership as {roles} in `{scope}` were in effect (it {why})",
    ChangeKind.ACCOUNT: "if the account were not suspended",
    ChangeKind.RESTRICTION: "if the processing of the person's data were not restricted",
    ChangeKind.COURSE_STATE: "if `{scope}` were active",
    ChangeKind.FACT: "",
    ChangeKind.PURPOSE: "if the purpose were `{purpose}`",
    ChangeKind.STATED_SCOPE: "if the request stated `{scope}` (where the resource is)",
}
_WHY = {
    None: "gives another role now",
    InactiveReason.DRAFT_COURSE: "does not work in a draft course",
    InactiveReason.NOT_STARTED: "has not started",
    InactiveReason.INVITED: "is an invitation",
    InactiveReason.SUSPENDED: "is suspended",
    InactiveReason.ENDED: "has ended",
    InactiveReason.ROLE_NOT_DECLARED: "has a role that the policy does not declare",
}


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """A decision with all that led to it.

    `message` is for the person asked about: it names no rule, no role and nobody else. `inputs` are what the
    facts were computed from; empty where none was. `nearest_grants` are the smallest sets of changes that
    would each allow what is denied: of equal size, and none does with less. `allowed_from` is the earliest
    time from which it is allowed if nothing but time changes.
    """

    decision: Decision
    decided_at: Instant
    trace: Trace
    message: str
    suspension: Suspension | None = None
    inputs: Mapping[str, Any] = msgspec.field(default_factory=dict)
    nearest_grants: tuple[tuple[Change, ...], ...] = ()
    allowed_from: Instant | None = None


def message_for(action: str, verdict: Verdict) -> str:
    """The reason of a verdict, fit to show to the person asked about."""
    if verdict.allowed:
        return "You may do this."
    if verdict.inactive_reason is not None:
        return _MEMBERSHIP_MESSAGES[verdict.inactive_reason]
    if verdict.reason is Reason.EXPLICIT_DENY and verdict.rule is not None:
        for fact, message in _DENY_MESSAGES.items():
            if fact in verdict.rule.condition and f"!{fact}" not in verdict.rule.condition:
                return message
    if verdict.reason is Reason.CONDITION_NOT_MET and action != "read":
        for fact, message in _UNMET_MESSAGES.items():
            if verdict.unmet & FACTS_BY_NAME[fact].bit:
                return message
    if action == CREATE_ACTION and verdict.reason in _NOT_THERE:  # what is asked about is to be created
        return _MESSAGES[Reason.NO_RULE]
    return _MESSAGES.get(verdict.reason, "This is not open to you.")


_NOT_THERE = (Reason.NOT_A_MEMBER, Reason.RESOURCE_UNKNOWN, Reason.SCOPE_MISMATCH)
_MESSAGES = {
    **dict.fromkeys(_NOT_THERE, "This does not exist, or you do not take part where it is."),
    Reason.PURPOSE_NOT_PERMITTED: "This may not be used for that purpose.",
    Reason.NO_RULE: "You may not do this here.",
}
_MEMBERSHIP_MESSAGES = {
    InactiveReason.DRAFT_COURSE: "This course has not opened yet.",
    InactiveReason.NOT_STARTED: "Your participation has not started yet.",
    InactiveReason.INVITED: "You have not accepted the invitation yet.",
    InactiveReason.SUSPENDED: "Your participation is suspended.",
    InactiveReason.ENDED: "Your participation has ended.",
    InactiveReason.ROLE_NOT_DECLARED: "Your role here is not in use any more.",
}
_DENY_MESSAGES = {
    "course_archived": "This course is archived and cannot be changed any more.",
    "session_ended": "This session is over.",
    "locked": "This is locked.",
    "for_ai_response": "AI features may not do this.",
}
_UNMET_MESSAGES = {
    "within_edit_window": "The time for changes is over.",
    "ai_enabled": "AI features are not available here.",
    "for_ai_response": "Only AI features may do this, to answer you.",
    "attending": "This is for those who take part in the session.",
}


def _any_of(roles: tuple[str, ...]) -> str:
    quoted = [f"`{role}`" for role in roles]
    return quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + f" or {quoted[-1]}" if quoted else ""


def _in_words(left_us: int) -> str:
    """A length of time in its largest unit."""
    for unit_us, name in _UNITS:
        if left_us >= unit_us:
            count = round(left_us / unit_us)
            return f"in {count} {name}{'s' if count != 1 else ''}"
    return "now"
