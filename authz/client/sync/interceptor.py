# Generated from authz/client/aio/interceptor.py; see `make client`.
"""A guard for gRPC servers: serves a method only if its check is allowed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import grpc

from authz.client.arguments import as_list
from authz.client.errors import RefusedError
from authz.client.sync.client import Client
from authz.client.sync.decide import decide
from authz.client.sync.transport import Asked, ServerInterceptor, require_servable

log = logging.getLogger("authz.client")

Question = Callable[[Any, Any], Asked]
"""Makes the question of a call (`check_request(…)`) from its request and its context. The request is None for
a method that takes a stream. May refuse the call by `context.abort`, for example as UNAUTHENTICATED."""

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
        self._public = frozenset(as_list(public, field="public"))

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Any],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        """As gRPC calls it."""
        handler, method = continuation(handler_call_details), handler_call_details.method
        if handler is None or method in self._public:
            return handler
        shape = "_".join(
            "stream" if streams else "unary"
            for streams in (handler.request_streaming, handler.response_streaming)
        )
        serve: Any = self._serve_stream if handler.response_streaming else self._serve
        guarded = partial(serve, method, handler.request_streaming, getattr(handler, shape))
        make = getattr(grpc, f"{shape}_rpc_method_handler")
        return make(guarded, handler.request_deserializer, handler.response_serializer)

    def _serve(
        self, method: str, takes_stream: bool, served: Callable[..., Any], request: Any, context: Any
    ) -> Any:
        """A method that answers once."""
        self._require(method, served, None if takes_stream else request, context)
        return served(request, context)

    def _serve_stream(
        self, method: str, takes_stream: bool, served: Callable[..., Any], request: Any, context: Any
    ) -> Iterator[Any]:
        """A method that answers many times, by yielding or by `context.write`."""
        self._require(method, served, None if takes_stream else request, context)
        answers = served(request, context)
        if isinstance(answers, Iterable):
            for answer in answers:
                yield answer
        else:
            _ = answers

    def _require(self, method: str, served: Callable[..., Any], request: Any, context: Any) -> None:
        question = self._questions.get(method)
        if question is None:
            context.abort(
                grpc.StatusCode.PERMISSION_DENIED,
                f"the guard has no question for {method}; add one, or name the method in `public`",
            )
            return
        try:
            require_servable(served)
            decide(self._client, partial(question, request, context))
        except RefusedError as refusal:
            context.abort(_CODES[refusal.status], str(refusal))
        except Exception:  # a mistake in the application; gRPC would send its text to the caller
            if context.code() is not None:
                raise  # the question has refused the call by itself
            log.exception("the check before %s failed", method)
            context.abort(grpc.StatusCode.INTERNAL, "the check before this method failed")
