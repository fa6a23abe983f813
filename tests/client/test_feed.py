"""How soon the watch of a client's cache is tried again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import grpc
import pytest

from authz.client import CallError, DecisionCache
from authz.client.aio import feed
from authz.domain.errors import ErrorReason
from authz.v1 import watch_pb2


async def test_a_watch_that_has_worked_is_tried_again_as_soon_as_a_new_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    works = iter([False, False, True, False, True])
    slept_s: list[float] = []
    is_done = asyncio.Event()

    class Watch:
        def __init__(self, *_: Any, on_checkpoint: Any, **__: Any) -> None:
            self._on_checkpoint = on_checkpoint

        async def changes(self) -> AsyncGenerator[Any, None]:
            if next(works):
                self._on_checkpoint(watch_pb2.Checkpoint(caught_up=True))
            raise CallError(grpc.StatusCode.OUT_OF_RANGE, ErrorReason.TOKEN_EXPIRED, "the log was purged")
            yield  # a generator

    async def sleep(duration_s: float) -> None:
        slept_s.append(duration_s)
        if len(slept_s) == 5:
            followed.end()
            is_done.set()

    monkeypatch.setattr(feed, "ResumingWatch", Watch)
    monkeypatch.setattr(feed, "sleep", sleep)
    followed = feed.CacheFeed(DecisionCache(), lambda _: None)
    followed.start()
    await asyncio.wait_for(is_done.wait(), 30)
    await followed.stop()
    assert slept_s == [1.0, 2.0, 1.0, 2.0, 1.0]
