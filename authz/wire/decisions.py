"""Questions and answers between protobuf and the domain."""

from __future__ import annotations

from authz.domain.decisions import CREATE_ACTION, Decision, Question, Rule, Verdict
from authz.domain.entities import Resource
from authz.domain.errors import ErrorReason, InvalidArgumentError
from authz.domain.facts import fact_names
from authz.domain.ids import PLATFORM, ResourceRef, Subject, is_id, is_name
from authz.domain.instants import MAX_INSTANT, Instant
from authz.v1 import authorization_pb2 as pb
from authz.v1 import common_pb2
from authz.wire.entities import parse_type, parse_visibility
from authz.wire.values import (
    SUBJECT_TYPES,
    malformed,
    missing,
    parse_optional_id,
    parse_scope,
    parse_subject,
    parse_time,
    quoted,
    set_time,
)

_REASONS = {name.removeprefix("REASON_"): number for name, number in pb.Reason.items()}
_STATES = {name.removeprefix("MEMBERSHIP_STATE_"): number for name, number in pb.MembershipState.items()}
_MAX_PURPOSE_LENGTH = 64


def parse_check(m: pb.CheckRequest) -> Question:
    """The question of a Check."""
    action = m.action
    if not action:
        raise missing("action")
    if not is_name(action):
        raise InvalidArgumentError(
            ErrorReason.UNKNOWN_ACTION,
            f"`{quoted(action)}` is not the name of an action",
            action=quoted(action),
        )
    return _question(m, action)


def parse_list_actions(m: pb.ListActionsRequest) -> Question:
    """The question of a ListActions; its action is still open."""
    return _question(m, CREATE_ACTION)


def _question(m: pb.CheckRequest | pb.ListActionsRequest, action: str) -> Question:
    # Every check goes through here, so the parts are looked at in place, and closely only when one is bad.
    asker, query, purpose = m.subject, m.resource, m.purpose
    subject_type, subject_id = SUBJECT_TYPES.get(asker.type), asker.id
    type_name, id_, course_id, session_id = query.type, query.id, query.course_id, query.session_id
    if (
        subject_type is None
        or not is_id(subject_id)
        or not is_name(type_name)
        or (id_ and not is_id(id_))
        or (course_id and not is_id(course_id))
        or (session_id and not is_id(session_id))
        or len(purpose) > _MAX_PURPOSE_LENGTH
    ):
        raise _fault_in(m)
    ref = ResourceRef(type_name, id_)
    return Question(
        Subject(subject_type, subject_id),
        action,
        ref,
        course_id or None,
        session_id or None,
        _inline(ref, query.inline) if query.HasField("inline") else None,
        purpose,
    )


def _fault_in(m: pb.CheckRequest | pb.ListActionsRequest) -> InvalidArgumentError:
    """The first thing that is wrong with a question in which something is."""
    try:
        parse_subject(m, "subject", field="subject")
        if not m.HasField("resource"):
            return missing("resource")
        parse_type(m.resource.type, field="resource.type")
        for field in ("id", "course_id", "session_id"):
            parse_optional_id(getattr(m.resource, field), field=f"resource.{field}")
    except InvalidArgumentError as error:
        return error
    return malformed("purpose", f"has {len(m.purpose)} characters; at most {_MAX_PURPOSE_LENGTH} are taken")


def _inline(ref: ResourceRef, m: pb.InlineResource) -> Resource:
    scope = parse_scope(m, "scope", field="resource.inline.scope")
    if scope == PLATFORM:
        raise malformed("resource.inline.scope", "is the platform; content is in a course or a session")
    return Resource(
        type=ref.type,
        id=ref.id,
        scope=scope,
        owner=parse_subject(m, "owner", field="resource.inline.owner") if m.HasField("owner") else None,
        visibility=parse_visibility(m.visibility, field="resource.inline.visibility"),
        published=m.published,
        available_from=parse_time(m, "available_from", field="resource.inline.available_from"),
        available_until=parse_time(m, "available_until", field="resource.inline.available_until"),
        created_at=parse_time(m, "created_at", field="resource.inline.created_at"),
        locked=m.locked,
        ai_allowed=m.ai_allowed,
    )


def rule_message(rule: Rule) -> pb.Rule:
    """A policy row as a message."""
    return pb.Rule(
        role=rule.role,
        scope=rule.scope,
        type=rule.type,
        action=rule.action,
        condition=rule.condition,
        effect=rule.effect,
        source=rule.source,
    )


_known: dict[int, tuple[Verdict, str, str, bytes]] = {}
_MAX_KNOWN = 4096


def encode_verdict(verdict: Verdict, policy_version: str, checked_at: str) -> bytes:
    """The part of an answer that verdict, policy and state settle, as it is sent. `checked_at` is the encoded
    token of the state.

    Verdicts are made once for each plan and set of facts, so there are few, and each is the same object
    every time: the object, kept alive here, is the key.
    """
    known = _known.get(id(verdict))
    if known is not None and known[2] == checked_at and known[1] == policy_version:
        return known[3]
    message = pb.CheckResponse(
        allowed=verdict.allowed,
        reason=pb.Reason.ValueType(_REASONS[verdict.reason]),
        rule=None if verdict.rule is None else rule_message(verdict.rule),
        unmet_facts=fact_names(verdict.unmet) if verdict.unmet else (),
        checked_at=common_pb2.ConsistencyToken(token=checked_at),
        policy_version=policy_version,
    )
    if verdict.inactive_reason is not None:
        message.membership_state = pb.MembershipState.ValueType(_STATES[verdict.inactive_reason])
    if len(_known) >= _MAX_KNOWN:
        _known.clear()
    body = message.SerializeToString()
    _known[id(verdict)] = (verdict, policy_version, checked_at, body)
    return body


def set_valid_until(message: pb.CheckResponse | pb.ListActionsResponse, valid_until: Instant | None) -> None:
    """Fill the field, or leave it absent for never."""
    if valid_until is not None and valid_until <= MAX_INSTANT:
        set_time(message.valid_until, valid_until)


def action_message(action: str, decision: Decision) -> pb.ActionResult:
    """One answer of ListActions as a message."""
    return pb.ActionResult(
        action=action, allowed=decision.allowed, reason=pb.Reason.ValueType(_REASONS[decision.reason])
    )
