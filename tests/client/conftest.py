"""Both kinds of clients: every test that makes its client by `connect` runs with each."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from contextlib import ExitStack
from typing import Any, cast

import pytest

from authz.client import AsyncClient, Client

Connect = Callable[..., Client]


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, awaited: Awaitable[Any]) -> Any:
        """Run to the end; give what it returns."""

        async def wait() -> Any:
            return await awaited

        return asyncio.run_coroutine_threadsafe(wait(), self._loop).result()

    def stop(self) -> None:
        """End the thread."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Blocking:
    """Makes what an asynchronous object does look as if it blocked."""

    def __init__(self, loop: Loop, wrapped: Any) -> None:
        self._loop = loop
        self.wrapped = wrapped

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.wrapped, name)
        if not inspect.isroutine(found):
            return Blocking(self._loop, found) if hasattr(found, "_calls") else found
        return lambda *args, **values: self._result(found(*args, **values))

    def __enter__(self) -> Blocking:
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run(self.wrapped.__aexit__(None, None, None))

    def _result(self, returned: Any) -> Any:
        if inspect.isasyncgen(returned):
            return self.items(cast(AsyncGenerator[Any, None], returned))
        if inspect.isawaitable(returned):
            return self._loop.run(returned)
        return Blocking(self._loop, returned) if isinstance(returned, AsyncClient) else returned

    def items(self, given: AsyncGenerator[Any, None]) -> Generator[Any, None, None]:
        """What an asynchronous generator gives."""
        try:
            while True:
                try:
                    item = self._loop.run(anext(given))
                except StopAsyncIteration:
                    return
                yield item
        finally:
            self._loop.run(given.aclose())


@pytest.fixture(params=[Client, AsyncClient])
def connect(request: pytest.FixtureRequest) -> Iterator[Connect]:
    """Makes a client of each kind in turn, with the arguments of `Client`."""
    if request.param is Client:
        yield Client
        return
    with ExitStack() as stack:
        loop = Loop()
        stack.callback(loop.stop)

        async def make(*args: Any, **options: Any) -> AsyncClient:
            return AsyncClient(*args, **options)

        yield lambda *args, **options: cast(Client, Blocking(loop, loop.run(make(*args, **options))))
