"""What the person asked about is told of a denial."""

from __future__ import annotations

import pytest

from authz.domain.decisions import Reason, Verdict
from authz.domain.explanation import message_for

UNSEEN = [Reason.NOT_A_MEMBER, Reason.RESOURCE_UNKNOWN, Reason.SCOPE_MISMATCH]


@pytest.mark.parametrize(
    ("action", "told"),
    [
        ("read", "This does not exist, or you do not take part where it is."),
        ("create", "You may not do this here."),
    ],
)
def test_the_message_does_not_tell_what_is_registered(action: str, told: str) -> None:
    assert {message_for(action, Verdict(False, reason)) for reason in UNSEEN} == {told}


def test_who_may_not_create_something_is_not_told_that_it_does_not_exist() -> None:
    for reason in (*UNSEEN, Reason.NO_RULE):
        assert message_for("create", Verdict(False, reason)) == "You may not do this here."
