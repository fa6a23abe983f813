# Generated from authz/client/aio/interceptor.py; see `make client`.
"""A guard for gRPC servers: serves a method only if its check is allowed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import grpc

from authz.client.refusal import RefusedError
from authz.client.sync.client import Client
from authz.client.sync.decide import decide
from authz.client.sync.transport import ServerInterceptor
from authz.v1 import authorization_pb2

Question = Callable[[Any, Any], authorization_pb2.CheckRequest]
"""Makes the question of a call (`check_request(…)`) from its request and its context. The request is None for
a method that takes a stream."""

_CODES = {
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    503: grpc.StatusCode.UNAVAILABLE,
}


class RequireInterceptor(ServerInterceptor):
    """Asks before each method, by its full name: `questions={"/notebooks.v1.Notebooks/Read": …}`.

    A method that has no question is refused, unless it is in `public`.
    """

    def __init__(
        self, client: Client, questions: Mapping[str, Question], *, public: Collection[str] = ()
    ) -> None:
        self._client = client
        self._questions = questions
        self._public = frozenset(public)

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Any],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """As gRPC calls it."""
        handler, method = continuation(handler_call_details), handler_call_details.method
        if handler is None or method in self._public:
            return handler
        guard = _Guard(self._client, method, self._questions.get(method))
        if handler.response_streaming:
            served = handler.stream_stream if handler.request_streaming else handler.unary_stream
            behavior: Any = guard.streaming(served, takes_stream=handler.request_streaming)
        else:
            served = handler.stream_unary if handler.request_streaming else handler.unary_unary
            behavior = guard.single(served, takes_stream=handler.request_streaming)
        make = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }[handler.request_streaming, handler.response_streaming]
        return make(behavior, handler.request_deserializer, handler.response_serializer)


class _Guard:
    """Stands before one method."""

    def __init__(self, client: Client, method: str, question: Question | None) -> None:
        self._client = client
        self._method = method
        self._question = question

    def single(self, served: Any, *, takes_stream: bool) -> Any:
        """A handler that answers once."""

        def handle(request: Any, context: Any) -> Any:
            self._require(None if takes_stream else request, context)
            return served(request, context)

        return handle

    def streaming(self, served: Any, *, takes_stream: bool) -> Any:
        """A handler that answers many times, by yielding or by `context.write`."""

        def handle(request: Any, context: Any) -> Iterator[Any]:
            self._require(None if takes_stream else request, context)
            answers = served(request, context)
            if isinstance(answers, Iterable):
                for answer in answers:
                    yield answer
            else:
                _ = answers

        return handle

    def _require(self, request: Any, context: Any) -> None:
        if self._question is None:
            context.abort(
                grpc.StatusCode.PERMISSION_DENIED,
                f"nothing is asked before {self._method}; give it a question, or name it in `public`",
            )
            return
        ask = self._question
        try:
            decide(self._client, lambda: ask(request, context))
        except RefusedError as refusal:
            context.abort(_CODES[refusal.status], str(refusal))
