"""The answers of calls that ask several questions at once, as a client receives them."""

from __future__ import annotations

import datetime as dt

import msgspec

from authz.client.errors import ItemFault, fault_of
from authz.client.questions import Answer, answer_of
from authz.v1 import authorization_pb2 as pb
from authz.wire.values import time_in


class SessionAccess(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody may do in a live session. Truthy only if they may join; else nothing else is allowed.

    `ends_at` is the planned end of the session, `valid_until` the earliest time at which time alone could
    change any of it; None for none. Who may not join is not told `course_id` and `ends_at`.
    """

    subject: str
    session_id: str
    course_id: str
    join: Answer
    may_present: bool
    may_moderate: bool
    may_record: bool
    ends_at: dt.datetime | None
    valid_until: dt.datetime | None

    def __bool__(self) -> bool:
        """Whether they may join."""
        return self.join.allowed


class SourceAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Whether an AI response may be made from a source. Truthy only if it may; `denied_action` says which of
    `read` and `ai_process` is denied, and `answer` why."""

    resource: str
    answer: Answer | ItemFault
    denied_action: str

    def __bool__(self) -> bool:
        """Whether it may be used."""
        return self.answer.allowed


def session_access_of(message: pb.AuthorizeSessionResponse, subject: str, session_id: str) -> SessionAccess:
    """What a message says of a subject in a session."""
    return SessionAccess(
        subject=subject,
        session_id=session_id,
        course_id=message.course_id,
        join=answer_of(message.join),
        may_present=message.may_present,
        may_moderate=message.may_moderate,
        may_record=message.may_record,
        ends_at=time_in(message, "ends_at"),
        valid_until=time_in(message, "valid_until"),
    )


def source_answer_of(message: pb.SourceResult, resource: str) -> SourceAnswer:
    """What a message says of a source."""
    is_answered = message.HasField("response")
    return SourceAnswer(
        resource=resource,
        answer=answer_of(message.response) if is_answered else fault_of(message.error),
        denied_action=message.denied_action,
    )
