"""Explanations as a client sees them."""

from __future__ import annotations

import datetime as dt

import msgspec

from authz.client.questions import Answer, answer_of, rule_text
from authz.domain.effective_roles import InactiveReason
from authz.domain.entities import MembershipStatus
from authz.domain.explanation import ChangeKind
from authz.v1 import authorization_pb2 as pb
from authz.wire.forms import Form, received
from authz.wire.values import parse_scope_message


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


_CHANGES = Form(
    NearestChange,
    pb.NearestChange,
    scope=received(lambda m: str(parse_scope_message(m, field="scope")) if m.WhichOneof("scope") else ""),
)
explanation_of = Form(
    Explanation,
    pb.ExplainResponse,
    answer=received(answer_of),
    facts=Form(
        ExplainedFact,
        pb.ExplainedFact,
        inputs=received(lambda inputs: {each.name: each.value for each in inputs}),
    ),
    rules=Form(ExplainedRule, pb.ExplainedRule, rule=received(rule_text)),
    nearest_grants=received(
        lambda grants: tuple(tuple(map(_CHANGES.parse, each.changes)) for each in grants)
    ),
).parse
"""The explanation of a message."""
