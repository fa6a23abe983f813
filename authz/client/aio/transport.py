"""What differs between the two kinds of clients. Its counterpart is `authz.client.sync.transport`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import grpc
import grpc.aio

from authz.client.connection import Connection
from authz.client.errors import error_of, silence
from authz.v1 import watch_pb2

T = TypeVar("T")
Method = Callable[..., Awaitable[T]]
"""A method of a stub that answers once."""
Channel = grpc.aio.Channel
ServerInterceptor = grpc.aio.ServerInterceptor

sleep = asyncio.sleep


def open_channel(connection: Connection) -> Channel:
    """A channel, which connects at the first call. Raises `RuntimeError` outside an event loop: the channel
    would belong to another one than its calls."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "make an AsyncClient in a coroutine, for example in the lifespan of the application"
        ) from None
    credentials = connection.credentials()
    if credentials is None:
        return grpc.aio.insecure_channel(connection.target, connection.options())
    return grpc.aio.secure_channel(connection.target, credentials, connection.options())


class Background:
    """A background coroutine of a client."""

    def __init__(self, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._run = run
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start the coroutine, unless it runs already."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Cancel it, and wait for its end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)


class GuardedStream:
    """A stream that is cancelled if its reader waits too long for a message."""

    def __init__(self, stream: Any, max_silence_s: float) -> None:
        self._stream = stream
        self._max_silence_s = max_silence_s

    async def messages(self) -> AsyncIterator[watch_pb2.WatchResponse]:
        """The messages of the stream. Raises `CallError` if the stream breaks or is silent for too long."""
        try:
            while True:
                # Only waiting counts: a slow reader is not a silent server.
                message = await asyncio.wait_for(self._stream.read(), self._max_silence_s)
                if message is grpc.aio.EOF:
                    return
                yield message
        except TimeoutError:
            raise silence(self._max_silence_s) from None
        except grpc.RpcError as failure:
            raise error_of(failure) from None

    async def close(self) -> None:
        """End the stream."""
        self._stream.cancel()
