"""Calls about policies: how long they may take, and numbers that a server would take for its default."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from authz.client import CallError, Client
from authz.domain.drafts import AddRow
from authz.domain.errors import InvalidArgumentError
from tests.client.conftest import Connect
from tests.policies import CLOSED, SHIPPED
from tests.serving import served

TOO_SHORT_S = 1e-9
"""For any call: a proof of the policies of 36,000 courses takes longer than a client usually waits."""
ROW = AddRow("p, support_agent, *, course, create, , allow")


def publish_a_draft(client: Client, hasty: Client) -> object:
    draft = client.policies.drafts.create("mine")
    return hasty.policies.publish(hasty.policies.drafts.edit(draft, [ROW]))


def schedule_a_draft(client: Client, hasty: Client) -> object:
    draft = client.policies.drafts.edit(client.policies.drafts.create("mine"), [ROW])
    return hasty.policies.drafts.schedule(draft, dt.datetime(2099, 1, 1, tzinfo=dt.UTC))


LONG_CALLS: dict[str, Callable[[Client, Client], object]] = {
    "apply": lambda _, hasty: hasty.policies.apply(CLOSED),
    "roll back": lambda _, hasty: hasty.policies.roll_back(1),
    "publish": publish_a_draft,
    "schedule": schedule_a_draft,
    "validate": lambda _, hasty: hasty.policies.validation(SHIPPED),
    "compare": lambda _, hasty: hasty.policies.diff(CLOSED, SHIPPED),
    "certificate": lambda _, hasty: hasty.policies.certificate(),
}


@pytest.mark.parametrize("call", LONG_CALLS.values(), ids=LONG_CALLS)
def test_what_proves_a_policy_may_take_long(
    sqlite_url: str, connect: Connect, call: Callable[[Client, Client], object]
) -> None:
    with served(sqlite_url) as address, connect(address) as client:
        hasty = client.with_options(timeout_s=TOO_SHORT_S)
        assert call(client, hasty)
        with pytest.raises(CallError) as failure:
            for _ in range(50):  # on a busy machine an answer may come before gRPC looks at the clock
                hasty.policies.active_number()
        assert failure.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


@pytest.mark.parametrize(
    ("field", "call"),
    [
        ("sample_rate", lambda client: client.policies.shadow.start(1, sample_rate=0)),
        ("budget_us", lambda client: client.policies.shadow.start(1, budget_us=0)),
        ("max_examples", lambda client: list(client.policies.preview(1, max_examples=0))),
        ("max_largest", lambda client: list(client.policies.preview(1, max_largest=0))),
    ],
)
def test_0_is_refused_where_a_server_would_take_its_default(
    connect: Connect, field: str, call: Callable[[Any], object]
) -> None:
    with connect("127.0.0.1:1") as client, pytest.raises(InvalidArgumentError, match=f"{field} is 0; give"):
        call(client)
