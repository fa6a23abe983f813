"""Each call is a span with the steps that took its time, as part of the trace of its caller."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import NamedTuple

import grpc
import pytest
import pytest_asyncio
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from authz.domain.errors import InvalidArgumentError
from authz.runtime.preflight import require_startable
from authz.runtime.server import Server
from authz.runtime.settings import load_settings
from authz.runtime.tracing import Tracing
from authz.v1 import authorization_pb2 as apb
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from authz.v1 import directory_pb2_grpc
from tests.api.test_api import COURSE, STUDENT, question, written
from tests.collector import Collector, collecting
from tests.databases import create_sqlite
from tests.forkserver import without_settings
from tests.service import Service
from tests.serving import serving

MODULE = pytest.mark.asyncio(loop_scope="module")
CHECK = "authz.v1.AuthorizationService/Check"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Traced(NamedTuple):
    service: Service
    exporter: InMemorySpanExporter

    def spans(self) -> list[ReadableSpan]:
        """Those that have ended since this was called last, the call's first."""
        found = sorted(self.exporter.get_finished_spans(), key=lambda each: each.parent is not None)
        self.exporter.clear()
        return sorted(found, key=lambda each: each.kind is not SpanKind.SERVER)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def traced(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Traced]:
    url = create_sqlite(tmp_path_factory.mktemp("traces") / "authz.db")
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    settings = load_settings({"address": "127.0.0.1:0", "database_url": url, "traces": True}, environ={})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_TRACES_EXPORTER", "none")
        patch.setattr("authz.runtime.tracing.open_tracing", lambda: Tracing(provider))
        async with Server(settings) as server, grpc.aio.insecure_channel(server.address) as channel:
            patch.undo()
            yield Traced(Service(channel, server.address, url), exporter)


@MODULE
async def test_a_write_and_a_check_with_its_token_show_where_their_time_went(traced: Traced) -> None:
    token = await written(traced.service, COURSE, STUDENT)
    write, *steps = traced.spans()
    assert write.name == "authz.v1.DirectoryService/Write"
    assert [step.name for step in steps] == ["wait"]
    await traced.service.authorization.Check(
        question(consistency=pb.Consistency(at_least_as_fresh=token)),
        metadata=(("traceparent", f"00-{TRACE}-{PARENT}-01"),),
    )
    check, *steps = traced.spans()
    assert (check.name, check.kind, check.status.status_code) == (CHECK, SpanKind.SERVER, StatusCode.UNSET)
    assert dict(check.attributes or {}) == {
        "rpc.system.name": "grpc",
        "rpc.method": CHECK,
        "rpc.response.status_code": "OK",
    }
    assert check.parent is not None and check.context is not None
    assert (f"{check.context.trace_id:032x}", f"{check.parent.span_id:016x}") == (TRACE, PARENT)
    assert {step.name for step in steps} == {"wait", "read", "decide"}
    for step in steps:
        assert step.parent is not None and step.context is not None
        assert step.parent.span_id == check.context.span_id
        assert check.start_time and check.end_time and step.start_time and step.end_time
        assert check.start_time <= step.start_time <= step.end_time <= check.end_time


@MODULE
async def test_a_batch_has_as_many_spans_as_a_check(traced: Traced) -> None:
    items = [question()] * 500
    answer = await traced.service.authorization.BatchCheck(apb.BatchCheckRequest(items=items))
    assert len(answer.results) == 500
    _, *steps = traced.spans()
    assert sorted(step.name for step in steps) == ["decide", "read"]


@MODULE
async def test_a_call_that_fails_says_how_and_only_a_fault_of_the_server_is_an_error(traced: Traced) -> None:
    with pytest.raises(grpc.aio.AioRpcError):
        await traced.service.authorization.Check(question(action="raed"))
    refused, *_ = traced.spans()
    assert refused.status.status_code is StatusCode.UNSET
    assert refused.attributes is not None
    assert refused.attributes["error.type"] == "INVALID_ARGUMENT"
    assert refused.attributes["authz.reason"] == "UNKNOWN_ACTION"
    token = await written(traced.service, COURSE)
    traced.spans()
    never = pb.Consistency(at_least_as_fresh=traced.service.moved(token, by=100))
    with pytest.raises(grpc.aio.AioRpcError):
        await traced.service.authorization.Check(question(consistency=never), timeout=2)
    late, waited = traced.spans()
    assert (late.status.status_code, waited.name) == (StatusCode.ERROR, "wait")


@MODULE
async def test_a_caller_that_does_not_sample_gets_no_span_and_its_answer(traced: Traced) -> None:
    header = (("traceparent", f"00-{TRACE}-{PARENT}-00"),)
    assert not (await traced.service.authorization.Check(question(), metadata=header)).allowed
    assert await traced.service.directory.ReadCourses(dpb.ReadCoursesRequest(), metadata=header)
    assert traced.spans() == []


def test_a_server_sends_what_its_variables_say_before_it_ends_and_logs_the_trace(sqlite_url: str) -> None:
    with collecting() as collector:
        require_traces(sqlite_url, collector)


def require_traces(sqlite_url: str, collector: Collector) -> None:
    variables = {
        "AUTHZ_TRACES": "true",
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.address,
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        "OTEL_TRACES_SAMPLER": "parentbased_always_off",
    }
    with serving(sqlite_url, **variables) as (process, address):
        with grpc.insecure_channel(address) as channel:
            stub = directory_pb2_grpc.DirectoryServiceStub(channel)
            stub.ReadCourses(dpb.ReadCoursesRequest())
            stub.ReadCourses(
                dpb.ReadCoursesRequest(), metadata=(("traceparent", f"00-{TRACE}-{PARENT}-01"),), timeout=20
            )
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert process.stderr is not None
        logged = [json.loads(line) for line in process.stderr]
    traces = {line.get("trace_id") for line in logged if line["event"] == "call"}
    assert traces == {None, TRACE}
    resources = collector.spans
    spans = [span for each in resources for scope in each.scope_spans for span in scope.spans]
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    assert {span.name for span in spans} == {"authz.v1.DirectoryService/ReadCourses", "read"}
    named = {entry.key: entry.value.string_value for entry in resources[0].resource.attributes}
    assert (named["service.name"], named["deployment.environment.name"]) == ("authz", "test")


def test_an_exporter_that_is_not_installed_is_named_unless_there_are_no_traces(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "authz")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    with pytest.raises(InvalidArgumentError, match="OTEL_TRACES_EXPORTER needs the exporter `zipkin`, which"):
        require_startable(load_settings({"database_url": sqlite_url, "traces": True}, environ={}))
    require_startable(load_settings({"database_url": sqlite_url}, environ={}))


def test_a_propagator_that_is_not_installed_ends_the_start_with_a_sentence() -> None:
    """In a process of its own, because OpenTelemetry reads the variable once."""
    command = [sys.executable, "-m", "authz.cli", "serve", "--memory", "--traces", "--address", "127.0.0.1:0"]
    environ = {**without_settings(), "OTEL_PROPAGATORS": "jaegr"}
    ended = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=60)
    assert ended.returncode == 2
    (line,) = map(json.loads, ended.stderr.splitlines())
    assert line["event"] == "cannot start"
    assert line["error"].startswith("OTEL_PROPAGATORS cannot be used; name installed ones, such as ")
    assert "jaegr" in line["error"]
