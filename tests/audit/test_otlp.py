"""The sink of the decision log that sends to an OpenTelemetry collector."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from authz.client import Client, check_request
from authz.domain.errors import InvalidArgumentError
from authz.domain.instants import parse_instant
from authz.runtime.audit import open_decision_log
from authz.runtime.settings import load_settings
from authz.store import Store
from tests.collector import Collector, collecting
from tests.serving import served
from tests.store.directory import open_with
from tests.store.log.test_decisions import ENTRY
from tests.waiting import until


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with collecting() as running:
        monkeypatch.setenv("OTEL_SERVICE_NAME", "authz")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.address)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        yield running


@pytest.fixture
def store(sqlite_url: str) -> Iterator[Store]:
    opened = open_with(sqlite_url)
    yield opened
    opened.close()


def value_of(value: AnyValue) -> Any:
    return getattr(value, value.WhichOneof("value") or "string_value")


def fields_of(attributes: Iterator[KeyValue]) -> dict[str, Any]:
    return {each.key: value_of(each.value) for each in attributes}


def test_a_collector_gets_the_fields_of_the_file(
    sqlite_url: str, collector: Collector, tmp_path: Path
) -> None:
    file = tmp_path / "decisions.jsonl"
    with served(sqlite_url, decision_log=f"otlp,file:{file}") as address, Client(address) as client:
        client.check("user:maya", "read", "course:algebra")
        client.batch_check(
            [check_request(name, "read", "course:algebra") for name in ("user:omar", "user:iris")]
        )
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(lines) == 3
    sent = [
        {name.removeprefix("authz."): value for name, value in fields_of(iter(each.attributes)).items()}
        for each in collector.records
    ]
    assert sent == [
        {name: value for name, value in line.items() if name != "at" and value != ""} for line in lines
    ]
    times = [each.time_unix_nano for each in collector.records]
    assert times == [parse_instant(line["at"], field="at") * 1000 for line in lines]
    assert {each.event_name for each in collector.records} == {"authz.decision"}
    resource = fields_of(iter(collector.logs[0].resource.attributes))
    assert (resource["service.name"], resource["deployment.environment.name"]) == ("authz", "test")


def test_entries_wait_while_the_collector_refuses_them(store: Store, collector: Collector) -> None:
    collector.status = 400
    log = open_decision_log(load_settings({"decision_log": "otlp"}, environ={}), store, lambda: 1)
    assert log is not None
    log.put(lambda: ENTRY)
    until(lambda: collector.refused, "nothing is sent")
    assert collector.records == []
    collector.status = 200
    until(lambda: collector.records, "the entry is not sent again")
    log.close()
    (record,) = collector.records
    assert fields_of(iter(record.attributes))["authz.decision_id"] == ENTRY.decision_id


def test_without_opentelemetry_the_setting_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "authz.audit.otlp", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry._logs", None)
    with pytest.raises(InvalidArgumentError, match=r"pip install 'qalamchat-authz\[otel\]'"):
        open_decision_log(load_settings({"decision_log": "otlp"}, environ={}), store, lambda: 1)


def test_a_protocol_whose_exporter_is_not_installed_is_named(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "grpc")
    with pytest.raises(InvalidArgumentError, match="AUTHZ_DECISION_LOG needs the exporter `otlp_proto_grpc`"):
        open_decision_log(load_settings({"decision_log": "otlp"}, environ={}), store, lambda: 1)
