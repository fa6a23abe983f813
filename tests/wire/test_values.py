"""Times in messages, up to the last that a message can hold."""

from __future__ import annotations

from authz.domain.instants import MAX_INSTANT, MIN_INSTANT
from authz.wire.values import time_message


def test_a_time_that_no_message_can_hold_is_left_out() -> None:
    for instant in (MIN_INSTANT, MAX_INSTANT):
        message = time_message(instant)
        assert message is not None
        assert message.ToMicroseconds() == instant
    assert time_message(MAX_INSTANT + 1) is None
