"""OpenTelemetry traces: a span for each call, with a child span for each step.

Imported only where they are on. Sampling, resource and exporter are as the OTEL_ variables say.
Source: https://opentelemetry.io/docs/specs/semconv/rpc/rpc-spans/,
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

import asyncio
import inspect
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from typing import Any, ParamSpec, TypeVar, TypeVarTuple, cast

import structlog
from opentelemetry import trace
from opentelemetry.propagate import extract, get_global_textmap
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

from authz.api.call import Call
from authz.api.pipeline import Pipeline
from authz.domain.consistency import Consistency, Freshness
from authz.domain.errors import AuthzError
from authz.domain.instants import Instant
from authz.domain.ports import Snapshot
from authz.domain.tokens import ConsistencyToken
from authz.engine.check import Checker
from authz.engine.consistency import ConsistencyGate
from authz.engine.policies import ActiveChecker
from authz.runtime.otel import VERSION, open_exporter, open_resource
from authz.runtime.settings import OTLP
from authz.wire.errors import code_name

T = TypeVar("T")
P = ParamSpec("P")
Ts = TypeVarTuple("Ts")

_EXPORTERS = "OTEL_TRACES_EXPORTER"
_FAULTS = ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
"""Status codes that mean a server error, not a client error."""
_WAIT, _READ, _DECIDE = "wait", "read", "decide"


class Steps:
    """When each step of a call began first and ended last: a batch decides a thousand times."""

    def __init__(self) -> None:
        self.taken: dict[str, tuple[int, int]] = {}

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Count the time of the block to a step."""
        begun_ns = time.time_ns()
        try:
            yield
        finally:
            first_ns, _ = self.taken.get(name, (begun_ns, 0))
            self.taken[name] = first_ns, time.time_ns()


_STEPS: ContextVar[Steps | None] = ContextVar("steps", default=None)
"""Of the call that is served, if it is sampled."""


def _timed(name: str) -> AbstractContextManager[None]:
    steps = _STEPS.get()
    return nullcontext() if steps is None else steps.timed(name)


class TracedGate(ConsistencyGate):
    """Times what waits for a state, and what reads the database."""

    async def snapshot(self, consistency: Consistency, deadline: float | None) -> Snapshot:
        if consistency.freshness is Freshness.MINIMIZE_LATENCY:
            return await super().snapshot(consistency, deadline)
        with _timed(_WAIT):
            return await super().snapshot(consistency, deadline)

    async def wait_until_replicated(self, state: ConsistencyToken) -> bool:
        with _timed(_WAIT):
            return await super().wait_until_replicated(state)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        with _timed(_READ):
            return await super().run(function, *args, **kwargs)

    async def run_in_turn(self, turn: asyncio.Lock, function: Callable[[*Ts], T], *args: *Ts) -> T:
        with _timed(_READ):
            return await super().run_in_turn(turn, function, *args)


class TracedActiveChecker(ActiveChecker):
    """Times what reads the snapshot, and what decides."""

    async def get(
        self, consistency: Consistency, deadline: float | None
    ) -> tuple[Snapshot, Checker, Instant]:
        snapshot, checker, now = await super().get(consistency, deadline)
        if (steps := _STEPS.get()) is not None:
            snapshot = cast(Snapshot, _Timed(snapshot, _READ, steps))
            checker = cast(Checker, _Timed(checker, _DECIDE, steps))
        return snapshot, checker, now


class _Timed:
    """Does what another object does, and counts the time of its methods to a step."""

    def __init__(self, wrapped: object, name: str, steps: Steps) -> None:
        self._wrapped, self._name, self._steps = wrapped, name, steps

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._wrapped, name)
        return partial(self._call, found) if inspect.ismethod(found) else found

    def _call(self, method: Callable[..., T], *given: Any, **named: Any) -> T:
        with self._steps.timed(self._name):
            return method(*given, **named)


class TracedPipeline(Pipeline):
    """Makes a span of each call, and one within it for each step."""

    def __init__(self, tracer: trace.Tracer, **parts: Any) -> None:
        super().__init__(**parts)
        self._tracer = tracer

    async def serve(self, call: Call, run: Callable[[Any, Call], Awaitable[T]], request: Any) -> T:
        method = call.method.name.removeprefix("/")
        span = self._tracer.start_span(
            method,
            extract({name: call.transport.header_values(name) for name in get_global_textmap().fields}),
            trace.SpanKind.SERVER,
            {"rpc.system.name": "grpc", "rpc.method": method},
        )
        if not span.is_recording():
            return await super().serve(call, run, request)
        steps, code = Steps(), "CANCELLED"
        outer = _STEPS.set(steps)
        try:
            with structlog.contextvars.bound_contextvars(trace_id=f"{span.get_span_context().trace_id:032x}"):
                answer = await super().serve(call, run, request)
            code = "OK"
        except AuthzError as error:
            code = code_name(error)
            span.set_attribute("authz.reason", error.reason.value)
            raise
        else:
            return answer
        finally:
            _STEPS.reset(outer)
            self._end(span, steps, code)

    def _end(self, span: trace.Span, steps: Steps, code: str) -> None:
        within = trace.set_span_in_context(span)
        for name, (begun_ns, ended_ns) in steps.taken.items():
            self._tracer.start_span(name, within, start_time=begun_ns).end(ended_ns)
        span.set_attribute("rpc.response.status_code", code)
        if code != "OK":
            span.set_attribute("error.type", code)
        if code in _FAULTS:
            span.set_status(trace.StatusCode.ERROR)
        span.end()


class Tracing:
    """Makes spans, and the parts of a server that are timed, in place of those that are not."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self.gate: type[ConsistencyGate] = TracedGate
        self.checker: type[ActiveChecker] = TracedActiveChecker
        self.pipeline: Callable[..., Pipeline] = partial(
            TracedPipeline, provider.get_tracer("authz", VERSION)
        )

    def close(self) -> None:
        """Flush the remaining spans. May wait for the collector."""
        self._provider.shutdown()


def open_tracing() -> Tracing:
    """Traces as the OTEL_ variables say, and lines of the log with the id of their trace.

    Raises as `open_exporters`.
    """
    processors = structlog.get_config()["processors"]
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, *processors])
    provider = TracerProvider(resource=open_resource())
    for exporter in open_exporters():
        provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracing(provider)


def open_exporters() -> list[SpanExporter]:
    """The exporters of the OTEL_ variables. Raises `InvalidArgumentError` for one that is not installed."""
    names = (name.strip() for name in os.environ.get(_EXPORTERS, OTLP).split(","))
    return [open_exporter("traces", name, variable=_EXPORTERS) for name in names if name not in ("", "none")]
