"""The server as its operator sees it: health, reflection, signals, TLS."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse

from authz.client import CallError, Client
from authz.domain.entities import (
    Course,
    CourseFilter,
    CourseState,
    Membership,
    MembershipFilter,
    Resource,
    ResourceFilter,
)
from authz.domain.ids import course_scope, parse_subject
from authz.domain.mutations import Mutation, Operation
from authz.engine.write import MAX_MUTATIONS_PER_BATCH
from tests.cli.commands import run
from tests.forkserver import TRANSPORT
from tests.properties import LONG
from tests.serving import over_grpc, serving


def campus_of(number: int) -> list[Mutation]:
    """A course, a member and a material, which a write holds whole or not at all."""
    scope = course_scope(f"c{number}")
    entities = (
        Course(id=f"c{number}", state=CourseState.ACTIVE),
        Membership(subject=parse_subject("user:maya"), scope=scope, role="student"),
        Resource(type="material", id=f"m{number}", scope=scope, published=True),
    )
    return [Mutation(Operation.TOUCH, entity) for entity in entities]


def test_health_reflection_and_a_clean_end_on_sigterm(sqlite_url: str) -> None:
    with serving(sqlite_url) as (process, address), grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        for name in ("", "authz.v1.AuthorizationService", "authz.v1.WatchService"):
            answer = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=60)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        services = set(ProtoReflectionDescriptorDatabase(channel).get_services())
        ours = {"AuthorizationService", "DirectoryService", "WatchService"}
        assert {f"authz.v1.{name}" for name in ours} <= services
        # The messages of v1 are those of v1alpha.
        reflect = channel.stream_stream(
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            request_serializer=ServerReflectionRequest.SerializeToString,
            response_deserializer=ServerReflectionResponse.FromString,
        )
        (answer,) = reflect(iter([ServerReflectionRequest(list_services="")]), timeout=60)
        assert {each.name for each in answer.list_services_response.service} == services
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def pinged(url: str, min_interval_s: str, wait_s: float) -> set[grpc.ChannelConnectivity]:
    """The states of a connection that is kept alive by a ping each second, until it is lost or time is up."""
    options = [("grpc.keepalive_time_ms", 1000), ("grpc.keepalive_permit_without_calls", 1)]
    states: list[grpc.ChannelConnectivity] = []
    with (
        serving(url, AUTHZ_MIN_PING_INTERVAL_S=min_interval_s) as (_, address),
        grpc.insecure_channel(address, [*options, ("grpc.http2.max_pings_without_data", 0)]) as channel,
    ):
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60)
        lost = threading.Event()

        def note(state: grpc.ChannelConnectivity) -> None:
            states.append(state)
            if state is not grpc.ChannelConnectivity.READY and grpc.ChannelConnectivity.READY in states:
                lost.set()

        channel.subscribe(note)
        lost.wait(wait_s)
    return set(states[states.index(grpc.ChannelConnectivity.READY) :])


@pytest.mark.skipif(TRANSPORT == "envoy", reason="Envoy answers every ping")
def test_an_idle_client_may_ping_as_often_as_the_setting_says(sqlite_url: str) -> None:
    assert pinged(sqlite_url, "0.5", wait_s=8) == {grpc.ChannelConnectivity.READY}
    assert pinged(sqlite_url, "60", wait_s=60) > {grpc.ChannelConnectivity.READY}


@over_grpc
@pytest.mark.parametrize("kill_after", [3, 25] if LONG else [25])
def test_a_killed_server_loses_no_acknowledged_write_and_leaves_no_half(
    store_url: str, kill_after: int
) -> None:
    acknowledged: list[int] = []
    with serving(store_url) as (process, address):

        def write_until_it_dies() -> None:
            with Client(address) as client:
                for number in range(100_000):
                    try:
                        client.write(campus_of(number))
                    except CallError:
                        return
                    acknowledged.append(number)
                    if number == kill_after:
                        enough.set()

        enough = threading.Event()
        writer = threading.Thread(target=write_until_it_dies)
        writer.start()
        assert enough.wait(60)
        process.kill()
        writer.join()
    with serving(store_url) as (_, address), Client(address) as client:
        courses = {c.entity.id for c in client.read(CourseFilter())}
        members = {m.entity.scope.id for m in client.read(MembershipFilter())}
        materials = {r.entity.scope.id for r in client.read(ResourceFilter())}
    assert courses == members == materials
    assert {f"c{number}" for number in acknowledged} <= courses


@over_grpc
def test_a_killed_server_leaves_whole_batches_of_an_import(store_url: str) -> None:
    sent = threading.Event()

    def progress(done: int) -> None:
        if done >= 4000:
            sent.set()

    with serving(store_url) as (process, address):

        def send() -> None:
            course = Mutation(Operation.TOUCH, Course(id="c", state=CourseState.ACTIVE))
            scope = course_scope("c")
            members = (
                Mutation(
                    Operation.TOUCH,
                    Membership(subject=parse_subject(f"user:u{n}"), scope=scope, role="student"),
                )
                for n in range(1_000_000)
            )
            with Client(address) as client, pytest.raises(CallError):
                client.import_mutations((m for part in ([course], members) for m in part), progress=progress)

        sender = threading.Thread(target=send)
        sender.start()
        assert sent.wait(60)
        process.kill()
        sender.join()
    with serving(store_url) as (_, address), Client(address) as client:
        count = sum(1 for _ in client.read(MembershipFilter())) + sum(1 for _ in client.read(CourseFilter()))
    assert count % MAX_MUTATIONS_PER_BATCH == 0


def test_tls_by_files(sqlite_url: str, tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    more = [
        "-addext",
        "subjectAltName=DNS:localhost",
        "-keyout",
        str(key),
        "-out",
        str(certificate),
        "-days",
        "2",
    ]
    try:
        subprocess.run([*command, *more], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("needs openssl to make a certificate")
    variables = {"AUTHZ_TLS_KEY_FILE": str(key), "AUTHZ_TLS_CERTIFICATE_FILE": str(certificate)}
    with serving(sqlite_url, **variables) as (_, address):
        target = f"localhost:{address.rpartition(':')[2]}"
        with Client(target, tls_ca_file=str(certificate)) as client:
            client.write(campus_of(1))
            assert client.check("user:maya", "read", "material:m1").allowed
        with Client(target) as client, pytest.raises(CallError):
            client.check("user:maya", "read", "material:m1")


@over_grpc
def test_an_inline_type_that_an_existing_database_does_not_know_is_told_once(sqlite_url: str) -> None:
    ended = run("serve", "--address", "127.0.0.1:0", "--database", sqlite_url, "--inline-types", "mesage")
    assert ended.returncode == 2
    (line,) = [line for line in ended.stderr.splitlines() if "AUTHZ_INLINE_TYPES" in line]
    assert "did you mean `message`?" in json.loads(line)["error"]


def refused(*arguments: str) -> str:
    """The reason that `authz serve` logs when it does not start."""
    address = () if "--address" in arguments else ("--address", "127.0.0.1:0")
    ended = run("serve", *address, *arguments)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    return str(json.loads(ended.stderr.splitlines()[-1])["error"])


@over_grpc
def test_what_is_wrong_with_a_start_is_told_with_the_setting(
    tmp_path: Path, empty_sqlite_url: str, postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("not what you think")
    here = ("--database", empty_sqlite_url)
    pem = ("--tls-key-file", str(text), "--tls-certificate-file", str(text))
    assert "AUTHZ_TLS_CERTIFICATE_FILE" in refused(*here, *pem)
    assert "AUTHZ_ADDRESS is `127.0.0.1:99999`" in refused(*here, "--address", "127.0.0.1:99999")
    assert "AUTHZ_METRICS_ADDRESS is `here`" in refused(*here, "--metrics-address", "here")
    assert "AUTHZ_WORKERS is `two`" in refused(*here, "--workers", "two")
    limits = ("--limits-file", str(text))
    for workers in ("1", "2"):
        said = f"AUTHZ_LIMITS_FILE names `{text}`, which cannot be used: it is not TOML"
        assert said in refused(*here, *limits, "--workers", workers)
    assert "AUTHZ_INLINE_TYPES names `course`" in refused(*here, "--inline-types", "course")
    assert "did you mean `message`?" in refused(*here, "--inline-types", "mesage")
    assert "set AUTHZ_ADDRESS to another path" in refused(*here, "--address", f"unix:{tmp_path}/no/s")
    for workers in ("1", "2"):
        elsewhere = ("--metrics-address", "192.0.2.1:9464", "--workers", workers)
        assert "set AUTHZ_METRICS_ADDRESS to a free host:port" in refused(*here, *elsewhere)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    for workers in ("1", "2"):
        exporter = "needs the exporter `otlp_proto_grpc`"
        assert exporter in refused(*here, "--traces", "--workers", workers)
        assert exporter in refused(*here, "--decision-log", "otlp", "--workers", workers)
    assert "is no SQLite database; restore it from a backup, or name another" in refused(
        "--database", f"sqlite:///{text}"
    )
    for workers in ("1", "2"):
        replica = ("--replica-dir", str(text), "--workers", workers)
        assert "set AUTHZ_REPLICA_DIR to a folder" in refused(*here, *replica)
    nowhere = tmp_path / "no" / "such" / "folder"
    assert "there is no such folder" in refused("--database", f"sqlite:///{nowhere}/authz.db")
    nobody = postgresql_url.replace("postgres:", "nobody:").replace("postgres@", "nobody@")
    assert nobody != postgresql_url
    assert 'role "nobody" does not exist' in refused(
        "--database", nobody, "--replica-dir", str(tmp_path / "replica")
    )
    # Nothing is left of any of them.
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
