"""What differs between the two kinds of clients. Its counterpart is `authz.client.aio.transport`."""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import grpc

from authz.client.connection import Connection
from authz.client.errors import closed, error_of, silence
from authz.client.hedging import HedgeBudget
from authz.v1 import watch_pb2
from authz.v1.authorization_pb2 import CheckRequest, CheckResponse
from authz.v1.authorization_pb2_grpc import AuthorizationServiceStub

T = TypeVar("T")
Method = Callable[..., T]
"""A method of a stub that answers once."""
Channel = grpc.Channel
Asked = CheckRequest
"""What an application returns as its question."""
ServerInterceptor = grpc.ServerInterceptor

sleep = time.sleep
CLOSED = ValueError
"""By which gRPC says that a channel is closed."""

_POLL_S = 0.5


def open_channel(connection: Connection, *, is_separate: bool = False) -> Channel:
    """A channel, which connects at the first call."""
    credentials = connection.credentials()
    options = connection.options(is_separate=is_separate)
    if credentials is None:
        return grpc.insecure_channel(connection.target, options)
    return grpc.secure_channel(connection.target, credentials, options)


def current_loop() -> Any:
    """None: a client that blocks belongs to no event loop."""
    return None


def require_loop(loop: Any) -> None:
    """Nothing: every thread may call."""


def require_servable(served: Callable[..., Any]) -> None:
    """Raise `TypeError` for what a server with threads cannot run."""
    if inspect.iscoroutinefunction(served) or inspect.isasyncgenfunction(served):
        raise TypeError(
            f"`{served!r}` is `async def`; serve it by `grpc.aio.server`, guarded by"
            " `authz.client.aio.interceptor`"
        )


def resolved(given: Asked) -> CheckRequest:
    """What an application asks."""
    return given


def answered(answer: T) -> T:
    """The answer of a call."""
    return answer


def each_of(stream: Iterable[T]) -> Iterable[T]:
    """The messages of a stream."""
    return stream


def answer_to(method: Any, messages: Iterable[object], metadata: Any) -> Any:
    """The answer of a method to a stream of messages. Raises what `messages` raises, once the server has
    answered what was sent before, and `CallError` if the channel is closed."""
    failures: list[Exception] = []

    def sent() -> Iterator[object]:
        try:
            yield from messages
        except Exception as error:  # noqa: BLE001  gRPC iterates in a thread of its own, logs it and does not tell
            failures.append(error)

    try:
        answer = method(sent(), metadata=metadata)
    except CLOSED:
        raise closed() from None
    except grpc.RpcError:
        if not failures:
            raise
    if failures:
        raise failures[0]
    return answer


class Hedge:
    """Sends a check a second time, over another connection, when there is no answer after a delay.

    The first answer counts, and the other call is cancelled. An error counts only if no other call is left.
    Source: https://grpc.io/docs/guides/request-hedging, which gRPC for Python does not have.
    """

    def __init__(self, connection: Connection, after_s: float) -> None:
        self._after_s = after_s
        self._channel = open_channel(connection, is_separate=True)
        self._again: Any = AuthorizationServiceStub(self._channel).Check
        self._budget = HedgeBudget()

    def check(self, method: Any, request: object, **options: Any) -> CheckResponse:
        """The answer of the method, or of the same one over the other connection."""
        self._budget.earn()
        ended: SimpleQueue[Any] = SimpleQueue()
        calls = [method.future(request, **options)]
        calls[0].add_done_callback(ended.put)
        try:
            try:
                call = ended.get(timeout=self._after_s)
            except Empty:
                if self._budget.spend():
                    left_s = max(0.0, options["timeout"] - self._after_s)
                    calls.append(self._again.future(request, **options | {"timeout": left_s}))
                    calls[1].add_done_callback(ended.put)
                call = ended.get()
            if call.code() is not grpc.StatusCode.OK and len(calls) > 1:
                call = ended.get()
            if call.code() is not grpc.StatusCode.OK:
                raise calls[0]
            answer: CheckResponse = call.result()
            return answer
        finally:
            for each in calls:
                each.cancel()

    def close(self) -> None:
        """Close the other connection."""
        self._channel.close()


class Background:
    """A function that runs in a thread beside the calls of a client."""

    def __init__(self, run: Callable[[], None]) -> None:
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=run, name="authz-background", daemon=True)
        self._is_started = False

    def start(self) -> None:
        """Run it, if it does not run yet."""
        with self._lock:
            if not self._is_started:
                self._is_started = True
                self._thread.start()

    def stop(self) -> None:
        """Wait for a moment for its end, which the end of the channel brings about."""
        if self._is_started:
            self._thread.join(_POLL_S)


class GuardedStream:
    """A stream that is cancelled if its reader waits too long for a message."""

    def __init__(self, stream: Any, idle_timeout_s: float) -> None:
        self._stream = stream
        self._idle_timeout_s = idle_timeout_s
        self._waiting_since: float | None = None
        self._is_silent = False
        self._closed = threading.Event()

    def messages(self) -> Iterator[watch_pb2.WatchResponse]:
        """The messages of the stream. Raises `CallError` if the stream breaks or is silent for too long."""
        threading.Thread(target=self._guard, name="watch-guard", daemon=True).start()
        self._waiting_since = time.monotonic()
        try:
            for message in self._stream:
                # Only waiting counts: a slow reader is not a silent server.
                self._waiting_since = None
                yield message
                self._waiting_since = time.monotonic()
        except grpc.RpcError as failure:
            raise (silence(self._idle_timeout_s) if self._is_silent else error_of(failure)) from None

    def close(self) -> None:
        """End the stream."""
        self._closed.set()
        self._stream.cancel()

    def _guard(self) -> None:
        while not self._closed.wait(min(_POLL_S, self._idle_timeout_s / 2)):
            since = self._waiting_since
            if since is not None and time.monotonic() - since > self._idle_timeout_s:
                self._is_silent = True
                self._stream.cancel()
                return
