"""A connection with many calls does not make the call of another one wait for all of them."""

from __future__ import annotations

import asyncio

import pytest

from authz.api.asgi.turns import ConnectionTurns


async def order_of_starts(turns: ConnectionTurns, *connections: str) -> list[str]:
    """The connections of calls that arrive in this order, in the order in which the calls start."""
    started: list[str] = []

    async def start(connection: str) -> None:
        await turns.wait(connection)
        started.append(connection)

    await asyncio.gather(*map(start, connections))
    return started


async def test_a_call_starts_before_the_backlog_of_another_connection() -> None:
    started = await order_of_starts(ConnectionTurns(), *["greedy"] * 400, "honest")
    assert started.index("honest") < 30
    assert len(started) == 401


@pytest.mark.parametrize("number", [1, 8, 9, 100])
async def test_every_call_starts_in_the_order_of_its_connection(number: int) -> None:
    turns = ConnectionTurns()
    for _ in range(2):  # it is as new once all have started
        connections = [f"c{each % 3}" for each in range(number)]
        assert sorted(await order_of_starts(turns, *connections)) == sorted(connections)


async def test_a_call_that_is_given_up_takes_no_turn_from_others() -> None:
    turns = ConnectionTurns()
    waiting = [asyncio.ensure_future(turns.wait("greedy")) for _ in range(100)]
    await asyncio.sleep(0)
    for each in waiting:
        each.cancel()
    assert await order_of_starts(turns, "honest") == ["honest"]
