"""Questions and answers of the client, and the outcomes of writes."""

from __future__ import annotations

import datetime as dt
import logging
from typing import Self, TypeAlias

import msgspec

from authz.client.arguments import as_record, as_resource, message_of, sent_subject
from authz.domain.decisions import Reason
from authz.domain.effective_roles import InactiveReason
from authz.domain.entities import Resource
from authz.domain.errors import malformed
from authz.domain.ids import ResourceRef, Subject, is_name, refused_id
from authz.domain.mutations import ImportFault
from authz.v1 import authorization_pb2
from authz.wire.decisions import INACTIVE_REASONS, REASONS, inline_message
from authz.wire.values import time_in

AskedResource: TypeAlias = str | ResourceRef | Resource
"""What a question is about: `notebook:nb-7`, or only the type for `create`. A whole `Resource` describes one
that is not registered."""

NOT_REPLICATED = (
    "the write is committed, but the replica of the server's machine has not followed yet;"
    " checks there are refused until it has"
)
log = logging.getLogger("authz.client")


def warn_unless_replicated(replicated: bool) -> None:
    """Log a warning about a write that checks do not see yet."""
    if not replicated:
        log.warning(NOT_REPLICATED)


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to one question. Truthy only if allowed, so `if client.check(…)` is safe.

    `rule` is the row that decided, as in the policy, with its file and line. `inactive_reason` says why the
    membership gives no role, empty if it does not matter. `valid_until` is the earliest time at which time
    alone could change the answer, None if time cannot. A reason or a state of a later release is text.
    """

    allowed: bool
    reason: Reason | str
    rule: str
    unmet_facts: tuple[str, ...]
    inactive_reason: InactiveReason | str
    policy_version: str
    checked_at: str
    valid_until: dt.datetime | None
    decision_id: str
    course_policy_version: str
    message: str = ""
    """For a denial: the reason as a sentence that may be shown to the person asked about."""

    @property
    def detail(self) -> str:
        """What is missing for a CONDITION_NOT_MET or MEMBERSHIP_NOT_EFFECTIVE, such as `not published`."""
        return self.inactive_reason or ", ".join(f"not {fact}" for fact in self.unmet_facts)

    def __bool__(self) -> bool:
        """Whether the action is allowed."""
        return self.allowed


class ActionAnswer(msgspec.Struct, frozen=True):
    """Whether a subject may perform one action, and why. Truthy only if allowed."""

    allowed: bool
    reason: Reason | str

    def __bool__(self) -> bool:
        """Whether the action is allowed."""
        return self.allowed


class ResourceActions(msgspec.Struct, frozen=True, kw_only=True):
    """Which actions a subject may perform on a resource: `if actions["update"]`. Truthy only if it may any.

    `actions` has every action of the type, in the order of the policy. The other fields are as in `Answer`,
    of all actions together.
    """

    actions: dict[str, ActionAnswer]
    policy_version: str
    checked_at: str
    valid_until: dt.datetime | None
    course_policy_version: str

    def __getitem__(self, action: str) -> ActionAnswer:
        """The answer for one action. Raises `KeyError` for one that the type does not have."""
        return self.actions[action]

    def __bool__(self) -> bool:
        """Whether any action is allowed."""
        return any(self.actions.values())


class AccessibleResource(msgspec.Struct, frozen=True, kw_only=True):
    """A resource (`<type>:<id>`) that the subject may act upon, and the course and the session that it is in,
    empty for none. The last three fields are of its page: the token of the state that was read, the version
    of the policy that decided, and the earliest time at which time alone could change the page."""

    resource: str
    course_id: str
    session_id: str
    checked_at: str
    policy_version: str
    valid_until: dt.datetime | None


class PermittedSubject(msgspec.Struct, frozen=True, kw_only=True):
    """A subject (`user:<id>`) that may act upon the resource.

    `rule` is the row that allows it, by the role `role`. A membership in `scope` as `membership_role` gives
    that role: another one when the membership or its course is over. The last three fields are as in
    `AccessibleResource`.
    """

    subject: str
    role: str
    scope: str
    membership_role: str
    rule: str
    checked_at: str
    policy_version: str
    valid_until: dt.datetime | None


class WriteToken(str):
    """The token of the state after a write, for `at_least_as_fresh`.

    `revision` is that of the records that the write changed, for a precondition AT_REVISION of the next
    write; 0 after `remove_member`. A record that the write left as it was keeps its revision. `replicated`
    is false if the write is committed and the replica of the server's machine has not followed: checks there
    are refused until it has.
    """

    revision: int
    replicated: bool

    def __new__(cls, token: str, *, revision: int = 0, replicated: bool) -> Self:
        """`revision` is 0 if the server did not tell it."""
        made = super().__new__(cls, token)
        made.revision, made.replicated = revision, replicated
        return made


class ImportOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of an import. `written_at` is the token of the state after it, for `at_least_as_fresh`.

    Unless `replicated`, the server that took it refuses checks until its replica has followed."""

    written: int
    unchanged: int
    failed: int
    faults: tuple[ImportFault, ...]
    faults_truncated: bool
    written_at: str
    replicated: bool


def check_request(
    subject: str | Subject,
    action: str,
    resource: AskedResource,
    *,
    course_id: str | None = None,
    session_id: str | None = None,
    purpose: str = "",
) -> authorization_pb2.CheckRequest:
    """A question for `Client.batch_check` or a guard. Raises `InvalidArgumentError` for a malformed id.

    An empty `course_id` or `session_id`, such as a field that a request does not set, is malformed: it must
    not pass for a question that states none.
    """
    return message_of(
        authorization_pb2.CheckRequest,
        subject=sent_subject(subject),
        action=action,
        resource=query_of(resource, course_id, session_id),
        purpose=purpose,
    )


def as_question(given: authorization_pb2.CheckRequest, *, field: str) -> authorization_pb2.CheckRequest:
    """A question that `check_request` made."""
    if not isinstance(given, authorization_pb2.CheckRequest):
        raise malformed(field, f"is `{given!r}`, which is no question; make it with `check_request`")
    return given


def answer_of(message: authorization_pb2.CheckResponse) -> Answer:
    """The answer of a message."""
    return Answer(
        allowed=message.allowed,
        reason=REASONS.received(message.reason),
        rule=rule_text(message.rule) if message.HasField("rule") else "",
        unmet_facts=tuple(message.unmet_facts),
        inactive_reason=INACTIVE_REASONS.received(message.inactive_reason),
        policy_version=message.policy_version,
        checked_at=message.checked_at.token,
        valid_until=time_in(message, "valid_until"),
        decision_id=message.decision_id,
        course_policy_version=message.course_policy_version,
        message=message.message,
    )


def actions_of(message: authorization_pb2.ListActionsResponse) -> ResourceActions:
    """The actions of a message."""
    return ResourceActions(
        actions={
            each.action: ActionAnswer(each.allowed, REASONS.received(each.reason)) for each in message.actions
        },
        policy_version=message.policy_version,
        checked_at=message.checked_at.token,
        valid_until=time_in(message, "valid_until"),
        course_policy_version=message.course_policy_version,
    )


def rule_text(rule: authorization_pb2.Rule) -> str:
    """A rule as in the policy, with its file and line."""
    fields = (rule.role, rule.scope, rule.type, rule.action, rule.condition, rule.effect)
    return f"p, {', '.join(fields)} ({rule.source})"


def query_of(
    resource: AskedResource, course_id: str | None = None, session_id: str | None = None
) -> authorization_pb2.ResourceQuery:
    """The message for a resource. Raises `InvalidArgumentError` for an empty course or session."""
    for field, stated in (("course_id", course_id), ("session_id", session_id)):
        if stated is not None and not stated:
            raise refused_id(field, "is empty; give the id, or leave it out to state none")
    query = message_of(
        authorization_pb2.ResourceQuery,
        course_id="" if course_id is None else course_id,
        session_id="" if session_id is None else session_id,
    )
    if isinstance(resource, str) and is_name(resource):
        query.type = resource
        return query
    if isinstance(resource, Resource):
        described: Resource = as_record(resource)
        query.inline.CopyFrom(inline_message(described))
        ref = described.key
    else:
        ref = as_resource(resource)
    query.type, query.id = ref.type, ref.id
    return query


def name_of(resource: AskedResource) -> str:
    """A resource as `<type>:<id>`."""
    return str(resource.key if isinstance(resource, Resource) else resource)
