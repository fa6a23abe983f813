"""Makes the calls of a client, with its timeout, its credentials, and retries."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable
from copy import copy
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from authz.client.aio.transport import CLOSED, Method, answered, each_of, require_loop, sleep
from authz.client.arguments import as_seconds, as_text
from authz.client.connection import READING, Identity
from authz.client.errors import CallError, closed, error_of
from authz.client.last_write import LastWrite
from authz.domain.errors import ErrorReason

T = TypeVar("T")

_INITIAL_BACKOFF_S = 0.1
_MAX_BACKOFF_S = 1.0
_JITTER = 1.25
"""Clients that failed at once wait up to this much longer, so that they do not all come back at once."""
_NOTHING_DONE = (ErrorReason.BEING_REMOVED, ErrorReason.LIMIT_EXCEEDED, ErrorReason.SERVER_STOPPING)


class Calls:
    """The timeout of a call, on whose behalf it is made, the last write of the client, the event loop that it
    belongs to, and the id that calls have in logs; empty for one that the server makes."""

    def __init__(
        self, timeout_s: float, identity: Identity, last_write: LastWrite, loop: Any, request_id: str = ""
    ) -> None:
        self.timeout_s = self.answer_timeout_s = as_seconds(timeout_s, field="timeout_s")
        self.identity = identity
        self.last_write = last_write
        self.loop = loop
        self.request_id = as_text(request_id, field="request_id")

    def at_least(self, timeout_s: float) -> Calls:
        """The same for calls whose answers may take longer than the timeout. Retries end with the timeout."""
        longer = copy(self)
        longer.answer_timeout_s = max(timeout_s, self.timeout_s)
        return longer

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The metadata of the next call.

        Raises `InvalidArgumentError` if there is no token, and `RuntimeError` in another event loop than that
        of the client.
        """
        require_loop(self.loop)
        return self.identity.metadata()

    async def call(self, method: Method[T], request: Message) -> T:
        """Call a method that answers once. Raises `CallError`.

        Retries within its timeout, as late as the server asks to, what the server refused before it did
        anything: while a record with the key of one that is written is still being removed, beyond a limit on
        the calls of this caller, and when the server stops. Retries a change that was not sent because no
        server is connected, and a request with an idempotency key after every UNAVAILABLE, because the server
        applies it once. Checks and reads that fail with UNAVAILABLE are retried by gRPC. Why the attempt
        before the last one failed is the cause of the error.
        """
        if self.request_id and "request_id" in request.DESCRIPTOR.fields_by_name:
            request.request_id = self.request_id  # type: ignore[attr-defined]  # as its descriptor says
        answer = await self._answer(method, request)
        written_at = getattr(answer, "written_at", None)
        if written_at is not None and written_at.token:
            self.last_write.note(written_at.token)
        return answer

    async def _answer(self, method: Method[T], request: Message) -> T:
        begun_at, backoff_s = time.monotonic(), _INITIAL_BACKOFF_S
        before: CallError | None = None
        while True:
            metadata = self.metadata()
            try:
                left_s = begun_at + self.answer_timeout_s - time.monotonic()
                return await answered(method(request, timeout=left_s, metadata=metadata))
            except CLOSED:
                raise closed() from None
            except grpc.RpcError as failure:
                error = error_of(failure)
                wait_s = max(backoff_s, error.retry_after_s) * random.uniform(1, _JITTER)  # noqa: S311  no secret
                is_late = time.monotonic() + wait_s >= begun_at + self.timeout_s
                if is_late or not _may_retry(request, error):
                    raise error from before
                before = error
            await sleep(wait_s)
            backoff_s = min(2 * backoff_s, _MAX_BACKOFF_S)

    async def pages(self, method: Method[Any], request: Any) -> AsyncIterator[Any]:
        """Every page of a list. Sets the `page_token` of the request. Raises `CallError`."""
        while True:
            page = await self.call(method, request)
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def open_stream(self, method: Callable[..., Any], request: object) -> Any:
        """Call a method that answers many times."""
        metadata = self.metadata()
        try:
            return method(request, metadata=metadata)
        except CLOSED:
            raise closed() from None

    async def stream(self, method: Callable[..., Any], request: object) -> AsyncIterator[Any]:
        """The answers of a method that answers many times; no time limit. Raises `CallError`."""
        answers = self.open_stream(method, request)
        try:
            async for answer in each_of(answers):
                yield answer
        except CLOSED:
            raise closed() from None
        except grpc.RpcError as failure:
            raise error_of(failure) from None
        finally:
            answers.cancel()


def _may_retry(request: Message, error: CallError) -> bool:
    """Whether the call can be made again without being done twice."""
    if error.reason in _NOTHING_DONE:
        return True
    if error.code is not grpc.StatusCode.UNAVAILABLE or error.is_misconfigured:
        return False
    is_change = not request.DESCRIPTOR.name.startswith(READING)
    return bool(getattr(request, "idempotency_key", "")) or (is_change and error.is_unsent)
