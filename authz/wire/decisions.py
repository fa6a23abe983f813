"""Questions and answers between protobuf and the domain."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from authz.domain.decisions import CREATE_ACTION, SESSION_TYPE, Decision, Question, Reason, Rule, Verdict
from authz.domain.effective_roles import InactiveReason
from authz.domain.entities import KINDS, Resource
from authz.domain.errors import ErrorReason, InvalidArgumentError, malformed
from authz.domain.facts import fact_names
from authz.domain.ids import PLATFORM, ResourceRef, is_name, parse_id
from authz.domain.instants import MAX_INSTANT, Instant
from authz.domain.kinds.fields import validate_text
from authz.v1 import authorization_pb2 as pb
from authz.v1.common_pb2 import ConsistencyToken
from authz.wire.fields import formatted, formatters_of, parse_type, parser_of
from authz.wire.values import WireEnum, ascii_excerpt, missing, parse_optional_id, parse_subject

REASONS = WireEnum(pb.Reason.DESCRIPTOR, Reason)
INACTIVE_REASONS = WireEnum(pb.InactiveReason.DESCRIPTOR, InactiveReason)
_MAX_PURPOSE_LENGTH = 64
_ANY_ACTION = "read"
"""Stands for the actions that a source is asked about."""
_INLINE = [
    (field.name, parser_of(field, pb.InlineResource.DESCRIPTOR, path="resource.inline."))
    for field in KINDS["resource"].other_fields
]
_INLINE_FORMATTERS = [
    each
    for field in KINDS["resource"].other_fields
    for each in formatters_of(field, pb.InlineResource.DESCRIPTOR)
]


def parse_check(m: pb.CheckRequest) -> Question:
    """The question of a Check."""
    return parse_question(m, parse_action(m.action))


def require_no_consistency(item: pb.CheckRequest | pb.ListActionsRequest, position: int) -> None:
    """Raise `InvalidArgumentError` for an item of a batch that states how fresh its own state must be."""
    if item.HasField("consistency"):
        text = "is of one item, and a batch is decided on one state; set the `consistency` of the batch"
        raise malformed(f"items[{position}].consistency", text)


def parse_action(action: str) -> str:
    """A well-formed name of an action; whether the type knows it is the policy's to say."""
    if not action:
        raise missing("action")
    if not is_name(action):
        raise InvalidArgumentError(
            ErrorReason.UNKNOWN_ACTION,
            f"`{ascii_excerpt(action)}` is not the name of an action",
            action=ascii_excerpt(action),
        )
    return action


def parse_purpose(purpose: str) -> str:
    """The purpose of an access; whether anything is allowed for it is decided."""
    validate_text(purpose, field="purpose", max_length=_MAX_PURPOSE_LENGTH)
    return purpose


def parse_list_actions(m: pb.ListActionsRequest) -> Question:
    """The question of a ListActions. Its action stands for every action of the type."""
    return parse_question(m, CREATE_ACTION)


def parse_session(m: pb.AuthorizeSessionRequest) -> Question:
    """The question about a session. Its action stands for every action of the type."""
    subject = parse_subject(m, "subject", field="subject")
    if not m.session_id:
        raise missing("session_id")
    ref = ResourceRef(SESSION_TYPE, parse_id(m.session_id, field="session_id"))
    return Question(subject, CREATE_ACTION, ref)


def parse_sources(m: pb.AuthorizeSourcesRequest) -> list[Question | InvalidArgumentError]:
    """A question for each source, or what is wrong with it. Raises `InvalidArgumentError` without any."""
    parse_subject(m, "subject", field="subject")
    if not m.sources:
        raise missing("sources")
    return [_source(m, number) for number in range(len(m.sources))]


def _source(m: pb.AuthorizeSourcesRequest, number: int) -> Question | InvalidArgumentError:
    try:
        return parse_check(pb.CheckRequest(subject=m.subject, action=_ANY_ACTION, resource=m.sources[number]))
    except InvalidArgumentError as error:
        return error


def parse_question(m: pb.CheckRequest | pb.ListActionsRequest | pb.ExplainRequest, action: str) -> Question:
    """The question of a request, with an action."""
    subject = parse_subject(m, "subject", field="subject")
    if not m.HasField("resource"):
        raise missing("resource")
    query = m.resource
    type_name = parse_type(query.type, field="resource.type")
    ref = ResourceRef(type_name, parse_optional_id(query.id, field="resource.id") or "")
    course_id = parse_optional_id(query.course_id, field="resource.course_id")
    session_id = parse_optional_id(query.session_id, field="resource.session_id")
    purpose = parse_purpose(m.purpose)
    inline = _inline(ref, query.inline) if query.HasField("inline") else None
    return Question(subject, action, ref, course_id, session_id, inline, purpose)


def _inline(ref: ResourceRef, m: pb.InlineResource) -> Resource:
    values = {name: parse(m) for name, parse in _INLINE}
    if values["scope"] == PLATFORM:
        raise malformed("resource.inline.scope", "is the platform; content is in a course or a session")
    return Resource(type=ref.type, id=ref.id, **values)


def inline_message(resource: Resource) -> pb.InlineResource:
    """The description of a resource that is not registered, without its type and id."""
    return pb.InlineResource(**formatted(resource, _INLINE_FORMATTERS))


@lru_cache(maxsize=4096)
def encode_verdict(verdict: Verdict, text: str, policy_version: str) -> bytes:
    """The part of a CheckResponse that is the same for every question with this verdict and its message.

    The key is the value of the verdict, so no revision makes an entry stale. See docs/decisions/0016.
    """
    message = pb.CheckResponse(
        allowed=verdict.allowed,
        reason=REASONS.number(verdict.reason),
        rule=None if verdict.rule is None else rule_message(verdict.rule),
        unmet_facts=fact_names(verdict.unmet),
        policy_version=policy_version,
        inactive_reason=INACTIVE_REASONS.number(verdict.inactive_reason),
        message=text,
    )
    return message.SerializeToString()


@lru_cache(maxsize=4096)
def rule_message(rule: Rule) -> pb.Rule:
    """A row of the policy as a message. Not to be changed: others hold it, too."""
    return pb.Rule(**msgspec.structs.asdict(rule))


def fill_check_response(
    message: pb.CheckResponse, decision: Decision, *, text: str, checked_at: str, decision_id: str
) -> None:
    """Fill an empty message with an answer. `text` is the reason of a denial for the person asked about;
    `checked_at` is the encoded token of the state."""
    told = "" if decision.allowed else text
    message.MergeFromString(encode_verdict(decision.verdict, told, decision.policy_version))
    message.checked_at.token = checked_at
    message.decision_id = decision_id
    message.course_policy_version = decision.course_policy_version
    set_valid_until(message, decision.valid_until)


def set_valid_until(message: Any, valid_until: Instant | None) -> None:
    """Fill the field, or leave it absent when time alone never changes the answer."""
    if valid_until is not None and valid_until <= MAX_INSTANT:
        message.valid_until.FromMicroseconds(valid_until)


def actions_message(
    answers: Mapping[str, Decision], *, token: str, policy_version: str
) -> pb.ListActionsResponse:
    """The answers of a ListActions, by action."""
    message = pb.ListActionsResponse(
        actions=[
            pb.ActionResult(action=action, allowed=each.allowed, reason=REASONS.number(each.reason))
            for action, each in answers.items()
        ],
        checked_at=ConsistencyToken(token=token),
        policy_version=policy_version,
        course_policy_version=next((each.course_policy_version for each in answers.values()), ""),
    )
    changes_at = [each.valid_until for each in answers.values() if each.valid_until is not None]
    set_valid_until(message, min(changes_at, default=None))
    return message
