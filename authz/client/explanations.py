"""Explanations as a client sees them."""

from __future__ import annotations

import datetime as dt

import msgspec

from authz.client.questions import Answer, answer_of, rule_text
from authz.domain.effective_roles import InactiveReason
from authz.domain.entities import MembershipStatus
from authz.domain.explanation import ChangeKind
from authz.v1 import authorization_pb2 as pb
from authz.wire.decisions import INACTIVE_REASONS
from authz.wire.explain import CHANGE_KINDS, STATUSES
from authz.wire.values import parse_scope_message, time_in


class ExplainedMembership(msgspec.Struct, frozen=True, kw_only=True):
    """A membership that was looked at: the role that it `gives`, else why it gives none.

    `counts` is false for a role on the platform where content is asked about.
    """

    scope: str
    role: str
    status: MembershipStatus | str
    starts_at: dt.datetime | None
    ends_at: dt.datetime | None
    suspended_until: dt.datetime | None
    gives: str
    inactive_reason: InactiveReason | str
    counts: bool


class ExplainedFact(msgspec.Struct, frozen=True, kw_only=True):
    """A fact with its value, what it means, and what it was computed from: the values by name, as text."""

    name: str
    holds: bool
    meaning: str
    inputs: dict[str, str]


class ExplainedRule(msgspec.Struct, frozen=True, kw_only=True):
    """A rule that was consulted, whether its condition holds, and what of it does not."""

    rule: str
    matches: bool
    unmet_facts: tuple[str, ...]


class NearestChange(msgspec.Struct, frozen=True, kw_only=True):
    """One change of those that would allow: in words (`text`), and as data, as in the API.

    `at` is when time alone brings it about, None if it does not.
    """

    text: str
    kind: ChangeKind | str
    scope: str
    roles: tuple[str, ...]
    fact: str
    holds: bool
    purpose: str
    at: dt.datetime | None


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one question with all that led to it. Truthy only if allowed.

    `message` is fit to show to the person asked about; all else names roles, rules and dates. Each of
    `nearest_grants` is a smallest set of changes that would allow what is denied. `allowed_from` is when it
    is allowed if nothing but time changes, None for never. `unregistered_scopes` are the course and the
    session that the question states and that are not registered: an id may be mistyped.
    """

    answer: Answer
    message: str
    decided_at: dt.datetime
    memberships: tuple[ExplainedMembership, ...]
    account_suspended: bool
    account_suspended_until: dt.datetime | None
    restricted: bool
    facts: tuple[ExplainedFact, ...]
    rules: tuple[ExplainedRule, ...]
    nearest_grants: tuple[tuple[NearestChange, ...], ...]
    allowed_from: dt.datetime | None
    unregistered_scopes: tuple[str, ...]

    def __bool__(self) -> bool:
        """Whether the action is allowed."""
        return self.answer.allowed


def explanation_of(message: pb.ExplainResponse) -> Explanation:
    """The explanation of a message."""
    return Explanation(
        answer=answer_of(message.answer),
        message=message.message,
        decided_at=message.decided_at.ToDatetime(dt.UTC),
        memberships=tuple(map(_membership_of, message.memberships)),
        account_suspended=message.account_suspended,
        account_suspended_until=time_in(message, "account_suspended_until"),
        restricted=message.restricted,
        facts=tuple(
            ExplainedFact(
                name=each.name,
                holds=each.holds,
                meaning=each.meaning,
                inputs={given.name: given.value for given in each.inputs},
            )
            for each in message.facts
        ),
        rules=tuple(
            ExplainedRule(
                rule=rule_text(each.rule), matches=each.matches, unmet_facts=tuple(each.unmet_facts)
            )
            for each in message.rules
        ),
        nearest_grants=tuple(tuple(map(_change_of, grant.changes)) for grant in message.nearest_grants),
        allowed_from=time_in(message, "allowed_from"),
        unregistered_scopes=tuple(
            str(parse_scope_message(each, field="scope")) for each in message.unregistered_scopes
        ),
    )


def _membership_of(message: pb.ExplainedMembership) -> ExplainedMembership:
    return ExplainedMembership(
        scope=str(parse_scope_message(message.scope, field="scope")),
        role=message.role,
        status=STATUSES.received(message.status),
        starts_at=time_in(message, "starts_at"),
        ends_at=time_in(message, "ends_at"),
        suspended_until=time_in(message, "suspended_until"),
        gives=message.gives,
        inactive_reason=INACTIVE_REASONS.received(message.inactive_reason),
        counts=message.counts,
    )


def _change_of(message: pb.NearestChange) -> NearestChange:
    scope = message.scope if message.HasField("scope") else None
    return NearestChange(
        text=message.text,
        kind=CHANGE_KINDS.received(message.kind),
        scope="" if scope is None else str(parse_scope_message(scope, field="scope")),
        roles=tuple(message.roles),
        fact=message.fact,
        holds=message.holds,
        purpose=message.purpose,
        at=time_in(message, "at"),
    )
