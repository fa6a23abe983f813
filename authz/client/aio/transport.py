"""What differs between the two kinds of clients. Its counterpart is `authz.client.sync.transport`."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import suppress
from typing import Any, TypeVar

import grpc
import grpc.aio

from authz.client.connection import Connection
from authz.client.errors import closed, error_of, silence
from authz.client.hedging import HedgeBudget
from authz.v1 import watch_pb2
from authz.v1.authorization_pb2 import CheckRequest, CheckResponse
from authz.v1.authorization_pb2_grpc import AuthorizationServiceStub

T = TypeVar("T")
Method = Callable[..., Awaitable[T]]
"""A method of a stub that answers once."""
Channel = grpc.aio.Channel
Asked = CheckRequest | Awaitable[CheckRequest]
"""What an application returns as its question."""
ServerInterceptor = grpc.aio.ServerInterceptor

sleep = asyncio.sleep
CLOSED = grpc.aio.UsageError
"""By which gRPC says that a channel is closed."""


def current_loop() -> asyncio.AbstractEventLoop:
    """The event loop that a client belongs to. Raises `RuntimeError` outside one."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "make an AsyncClient in a coroutine, for example in the lifespan of the application"
        ) from None


def require_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Raise `RuntimeError` in another loop, in which a call would fail obscurely or never end."""
    if asyncio.get_running_loop() is not loop:
        raise RuntimeError(
            "this AsyncClient was made in another event loop; make one in each, or use a Client, which may be"
            " shared between threads"
        )


def require_servable(served: Callable[..., Any]) -> None:
    """Raise `TypeError` for what grpc.aio would run in a thread: a guard can only await it."""
    if not inspect.iscoroutinefunction(served) and not inspect.isasyncgenfunction(served):
        raise TypeError(f"`{served!r}` is no `async def`; a guarded method of grpc.aio has to be one")


async def resolved(given: Asked) -> CheckRequest:
    """What an application asks."""
    return await given if inspect.isawaitable(given) else given


async def answered(call: Awaitable[T]) -> T:
    """The answer of a call. Raises `CLOSED` if its channel is closed meanwhile.

    A task of its own awaits the call. gRPC cancels a call whose channel is closed, and does not cancel who
    awaits it. And it raises another `CancelledError` than the one that it gets, by which anyio would know
    that a scope was cancelled.
    """
    task = asyncio.ensure_future(call)
    try:
        await asyncio.wait((task,))
    finally:
        _cancel(call, task)
    if task.cancelled():
        raise CLOSED("the channel is closed")
    return task.result()


def _cancel(call: Any, task: asyncio.Future[Any]) -> None:
    """Cancel a call that nobody waits for. The task then ends by itself.

    `call.cancel()` and `task.cancel()` end the task in which gRPC receives the answer, and gRPC then never
    frees the 1 KB that it allocated for it. A call without this attribute is cancelled as usual.
    Source: https://github.com/grpc/grpc/issues/43360
    """
    inner = getattr(call, "_cython_call", None)
    if inner is None:
        task.cancel()
    elif not inner.done():
        inner.cancel("nobody waits for the answer")


async def each_of(stream: Any) -> AsyncIterator[Any]:
    """The messages of a stream."""
    while (message := await answered(stream.read())) is not grpc.aio.EOF:
        yield message


def open_channel(connection: Connection, *, is_separate: bool = False) -> Channel:
    """A channel, which connects at the first call. Belongs to the running event loop."""
    credentials = connection.credentials()
    options = connection.options(is_separate=is_separate)
    if credentials is None:
        return grpc.aio.insecure_channel(connection.target, options)
    return grpc.aio.secure_channel(connection.target, credentials, options)


async def answer_to(method: Any, messages: Iterable[object], metadata: Any) -> Any:
    """The answer of a method to a stream of messages. Raises what `messages` raises, and `CallError` if the
    channel is closed, or is closed meanwhile."""
    try:
        call = method(metadata=metadata)
    except CLOSED:
        raise closed() from None
    sending = asyncio.ensure_future(_send_each(call, messages))
    # A write that fails after the status has arrived would replace it by INTERNAL, without a reason.
    # Source: https://github.com/grpc/grpc/issues/36066
    call.add_done_callback(lambda _: sending.cancel())
    try:
        await asyncio.wait((sending,))
        if not sending.cancelled():
            sending.result()
        return await answered(call)
    except CLOSED:
        raise closed() from None
    finally:
        call.cancel()


async def _send_each(call: Any, messages: Iterable[object]) -> None:
    """Send until the call ends. Its answer says why it does."""
    with suppress(asyncio.InvalidStateError, grpc.aio.InternalError, grpc.aio.AioRpcError):
        for message in messages:
            await call.write(message)
        await call.done_writing()


class Hedge:
    """Sends a check a second time, over another connection, when there is no answer after a delay.

    The first answer counts, and the other call is cancelled. An error counts only if no other call is left.
    Source: https://grpc.io/docs/guides/request-hedging, which gRPC for Python does not have.
    """

    def __init__(self, connection: Connection, after_s: float) -> None:
        self._after_s = after_s
        self._channel = open_channel(connection, is_separate=True)
        self._again = AuthorizationServiceStub(self._channel).Check
        self._budget = HedgeBudget()

    async def check(self, method: Method[CheckResponse], request: object, **options: Any) -> CheckResponse:
        """The answer of the method, or of the same one over the other connection."""
        self._budget.earn()
        calls = [asyncio.ensure_future(_answer(method, request, options))]
        try:
            await asyncio.wait(calls, timeout=self._after_s)
            if not calls[0].done() and self._budget.spend():
                left_s = max(0.0, options["timeout"] - self._after_s)
                calls.append(
                    asyncio.ensure_future(_answer(self._again, request, options | {"timeout": left_s}))
                )
            pending = set(calls)
            while True:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                answered = [call for call in done if call.exception() is None]
                if answered or not pending:
                    return (answered or calls)[0].result()
        finally:
            for call in calls:
                call.cancel()

    async def close(self) -> None:
        """Close the other connection."""
        await self._channel.close()


async def _answer(method: Method[T], request: object, options: dict[str, Any]) -> T:
    return await answered(method(request, **options))


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

    def __init__(self, stream: Any, idle_timeout_s: float) -> None:
        self._stream = stream
        self._idle_timeout_s = idle_timeout_s

    async def messages(self) -> AsyncIterator[watch_pb2.WatchResponse]:
        """The messages of the stream. Raises `CallError` if the stream breaks or is silent for too long."""
        try:
            while True:
                # Only waiting counts: a slow reader is not a silent server.
                message = await asyncio.wait_for(answered(self._stream.read()), self._idle_timeout_s)
                if message is grpc.aio.EOF:
                    return
                yield message
        except CLOSED:
            raise closed() from None
        except TimeoutError:
            raise silence(self._idle_timeout_s) from None
        except grpc.RpcError as failure:
            raise error_of(failure) from None

    async def close(self) -> None:
        """End the stream."""
        self._stream.cancel()
