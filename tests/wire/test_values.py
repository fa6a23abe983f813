"""Values in messages: times, up to the last that a message can hold, and members of enums."""

from __future__ import annotations

from enum import StrEnum

import pytest

from authz.domain.effective_roles import InactiveReason
from authz.domain.instants import MAX_INSTANT, MIN_INSTANT
from authz.v1.authorization_pb2 import InactiveReason as InactiveReasonOfMessages
from authz.wire.values import WireEnum, time_message


def test_a_member_that_messages_have_no_name_for_is_named_before_any_call() -> None:
    more = StrEnum("InactiveReason", [*InactiveReason.__members__, "PAUSED"])  # type: ignore[misc]  # a test's
    with pytest.raises(TypeError, match="InactiveReason has no INACTIVE_REASON_PAUSED; add it in protos/"):
        WireEnum(InactiveReasonOfMessages.DESCRIPTOR, more)


def test_a_time_that_no_message_can_hold_is_left_out() -> None:
    for instant in (MIN_INSTANT, MAX_INSTANT):
        message = time_message(instant)
        assert message is not None
        assert message.ToMicroseconds() == instant
    assert time_message(MAX_INSTANT + 1) is None
