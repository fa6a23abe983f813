"""Large calls take turns: each goes on, none holds up a small one, and the results keep their order."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from authz.engine.turns import LIGHT_SLICE, Turns


@pytest.mark.parametrize("slice_size", [20, LIGHT_SLICE])
@pytest.mark.parametrize("count", [0, 1, 19, 20, 21, 100, 1000])
async def test_all_items_come_in_order(count: int, slice_size: int) -> None:
    assert await Turns().collect(iter(range(count)), slice_size=slice_size) == list(range(count))


async def test_large_calls_go_on_together_and_a_small_one_is_done_before_them() -> None:
    turns, done, produced = Turns(), [], [0, 0]

    def items(call: int) -> Iterator[int]:
        for number in range(1000):
            produced[call] += 1
            yield number

    async def large(call: int) -> None:
        await turns.collect(items(call))
        done.append(f"large {call}")

    async def small() -> None:
        while min(produced) < 200:  # noqa: ASYNC110  both are in the middle then
            await asyncio.sleep(0)
        assert max(produced) < 1000
        await turns.collect(iter(range(10)))
        done.append("small")

    await asyncio.gather(large(0), large(1), small())
    assert done[0] == "small"
    assert sorted(done[1:]) == ["large 0", "large 1"]


async def test_an_error_in_one_call_leaves_the_turns_to_the_others() -> None:
    turns = Turns()

    def fails() -> Iterator[int]:
        yield from range(70)
        raise ValueError("the 71st")

    failed, others = await asyncio.gather(
        turns.collect(fails()), turns.collect(iter(range(200))), return_exceptions=True
    )
    assert isinstance(failed, ValueError)
    assert others == list(range(200))


async def test_parts_come_in_order_with_turns_for_others_in_between() -> None:
    turns, others = Turns(), 0

    async def other() -> None:
        nonlocal others
        while True:
            await asyncio.sleep(0)
            others += 1

    beside = asyncio.create_task(other())
    parts = [part async for part in turns.parts(iter(range(1010)))]
    beside.cancel()
    assert [item for part in parts for item in part] == list(range(1010))
    assert 20 < len(parts) <= others + 1
    nothing: list[int] = []
    assert [part async for part in turns.parts(nothing)] == []


async def test_an_item_or_a_step_that_takes_long_is_a_slice_of_its_own() -> None:
    turns, produced, others = Turns(), list[int](), list[int]()

    def slowly() -> Iterator[int]:
        for number in range(3):
            time.sleep(0.003)
            produced.append(number)
            yield number

    async def other() -> None:
        while len(produced) < 3:
            await asyncio.sleep(0)
            others.append(len(produced))

    assert [part async for part in turns.parts(slowly())] == [[0], [1], [2]]
    produced.clear()
    found, _ = await asyncio.gather(turns.collect(slowly()), other())
    assert found == [0, 1, 2]
    assert {1, 2} <= set(others)
