"""Probes and metrics over plain HTTP: of one process, of several, and while the API demands certificates."""

from __future__ import annotations

import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from authz.client import CallError, Client, check_request
from authz.domain.entities import Course
from authz.domain.mutations import Mutation, Operation
from tests.forkserver import Process
from tests.runtime.test_mutual_tls import certify
from tests.runtime.test_supervise import children, metrics, worker
from tests.serving import find_free_port, over_grpc, serving
from tests.waiting import until

CHECK = "authz.v1.AuthorizationService/Check"
COURSE = Mutation(Operation.TOUCH, Course(id="algebra"))


def get(address: str, path: str, data: bytes | None = None) -> tuple[int, str]:
    """The status and the text of an answer to a GET, or to a POST of data."""
    try:
        with urllib.request.urlopen(f"http://{address}{path}", data, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def total(address: str, name: str, **labels: str) -> float:
    """The sum of the samples of a metric that have these labels."""
    wanted = [f'{label}="{value}"' for label, value in labels.items()]
    return sum(
        value
        for sample, value in metrics(address).items()
        if re.split(r"[{ ]", sample)[0] == name and all(each in sample for each in wanted)
    )


@pytest.fixture(scope="module", params=["1 grpc", "2 envoy"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Process, str, str]]:
    """A server with one worker, and one with two over the other transport: its process, its address and that
    of its metrics."""
    url = f"sqlite:///{tmp_path_factory.mktemp('http') / 'authz.db'}"
    exported = f"127.0.0.1:{find_free_port()}"
    workers, transport = request.param.split()
    variables = {"AUTHZ_WORKERS": workers, "AUTHZ_TRANSPORT": transport, "AUTHZ_METRICS_ADDRESS": exported}
    with serving(url, **variables) as (process, address):
        yield process, address, exported


def test_it_says_whether_the_server_lives_and_is_ready_and_nothing_else(
    served: tuple[Process, str, str],
) -> None:
    *_, exported = served
    assert total(exported, "authz_policy_version") == 1  # from the first scrape on
    assert get(exported, "/livez") == (200, "ok\n")
    until(lambda: get(exported, "/readyz") == (200, "ok\n"), "the server does not become ready")
    for path in ("/", "/livez/", "/metrics/", "/debug", "/readyz/x", "/healthz"):
        assert get(exported, path) == (404, "not found\n"), path
    for path in ("/metrics", "/livez"):
        assert get(exported, path, data=b"x") == (404, "not found\n"), path


def test_calls_of_all_workers_are_counted_together(served: tuple[Process, str, str]) -> None:
    _, address, exported = served
    calls = {"rpc_method": CHECK, "rpc_response_status_code": "OK", "caller_kind": "unauthenticated"}
    denied = {"allowed": "false", "reason": "NOT_A_MEMBER", "type": "course", "action": "read"}
    question = check_request("user:maya", "read", "course:algebra")
    with Client(address) as client:
        client.write([COURSE])
    before = total(exported, "rpc_server_call_duration_seconds_count", **calls)
    decisions = total(exported, "authz_decisions_total", **denied)
    for _ in range(10):  # each over a connection of its own, so that several workers answer
        with Client(address) as client:
            assert not client.check("user:maya", "read", "course:algebra")
            assert len(client.batch_check([question] * 3)) == 3
            with pytest.raises(CallError):
                client.check("user:maya", "raed", "course:algebra")
    assert total(exported, "rpc_server_call_duration_seconds_count", **calls) == before + 10
    assert total(exported, "authz_decisions_total", **denied) == decisions + 40
    bad = calls | {"rpc_response_status_code": "INVALID_ARGUMENT"}
    assert total(exported, "rpc_server_call_duration_seconds_count", **bad) >= 10
    assert total(exported, "rpc_server_call_duration_seconds_bucket", le="1e-05", **calls) >= 0
    assert total(exported, "authz_group_commit_writes_count") >= 1
    assert total(exported, "authz_replication_lag_seconds_count") >= 1


@pytest.mark.parametrize("served", ["2 grpc"], indirect=True)
def test_counts_outlive_the_worker_that_made_them(served: tuple[Process, str, str]) -> None:
    process, address, exported = served
    with Client(address) as client:
        client.check("user:maya", "read", "course:algebra")
    before = total(exported, "rpc_server_call_duration_seconds_count", rpc_method=CHECK)
    worker(children(process)).kill()
    until(lambda: total(exported, "authz_process_restarts_total") >= 1, "the worker was not started again")
    until(lambda: get(exported, "/readyz")[0] == 200, "the server does not become ready again")
    assert before >= 1
    assert total(exported, "rpc_server_call_duration_seconds_count", rpc_method=CHECK) >= before


@over_grpc
def test_it_is_not_ready_while_checks_are_refused(tmp_path: Path) -> None:
    exported = f"127.0.0.1:{find_free_port()}"
    url, folder = f"sqlite:///{tmp_path / 'authz.db'}", str(tmp_path / "none")
    variables = {"AUTHZ_FOLLOW": "false", "AUTHZ_REPLICA_DIR": folder, "AUTHZ_METRICS_ADDRESS": exported}
    with serving(url, **variables):
        status, cause = get(exported, "/readyz")
        assert (status, get(exported, "/livez")) == (503, (200, "ok\n"))
        assert total(exported, "authz_policy_version") == 0
        assert "replica" in cause


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make certificates")
def test_it_answers_while_the_api_demands_certificates_and_counts_what_cannot_be_read(tmp_path: Path) -> None:
    exported = f"127.0.0.1:{find_free_port()}"
    chain, key = certify(tmp_path, "localhost", "-addext", "subjectAltName=DNS:localhost")
    callers = tmp_path / "callers.toml"
    callers.write_text('[dns]\n"localhost" = "service:app"\n')
    variables = {
        "AUTHZ_ADDRESS": "localhost:0",
        "AUTHZ_METRICS_ADDRESS": exported,
        "AUTHZ_TLS_CERTIFICATE_FILE": str(chain),
        "AUTHZ_TLS_KEY_FILE": str(key),
        "AUTHZ_TLS_CLIENT_CA_FILE": str(chain),
        "AUTHZ_CALLERS_FILE": str(callers),
    }
    with serving(f"sqlite:///{tmp_path / 'authz.db'}", **variables) as (_, address):
        assert get(exported, "/readyz") == (200, "ok\n")
        assert total(exported, "authz_reload_failures_total", kind="callers") == 0
        callers.write_text("no TOML")

        def refused() -> bool:
            ours, its_key = str(chain), str(key)
            client = Client(address, tls_ca_file=ours, tls_certificate_file=ours, tls_key_file=its_key)
            with client, pytest.raises(CallError) as caught:
                client.current_token()
            return caught.value.reason == "CREDENTIALS_UNVERIFIABLE"

        until(refused, "the file that cannot be read is not noticed")
        assert total(exported, "authz_reload_failures_total", kind="callers") == 1
        assert get(exported, "/readyz") == (200, "ok\n")
