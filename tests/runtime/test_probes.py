"""The server of probes: what its clients do leaves no line, and what fails in it is one line of the log."""

from __future__ import annotations

import http.client
import socket
import threading

import pytest
import structlog
from prometheus_client import CollectorRegistry

from authz.runtime import probes
from authz.runtime.probes import Probes, serving_probes
from tests.serving import find_free_port
from tests.waiting import until


def nothing() -> str:
    return ""


@pytest.mark.parametrize("sent", [b"", b"GET /livez HTTP/1.1\r\nHost: ", b"GET /livez HTTP/1.1\r\n\r\n"])
def test_a_client_that_is_silent_or_leaves_prints_nothing(
    sent: bytes, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes._Handler, "timeout", 0.1)
    port, before = find_free_port(), threading.active_count()
    with serving_probes(f"127.0.0.1:{port}", Probes(CollectorRegistry(), nothing, nothing)):
        for leaves in (False, True):
            with socket.create_connection(("127.0.0.1", port)) as client:
                client.sendall(sent)
                if not leaves:
                    while client.recv(4096):  # until the server ends the connection
                        pass
        until(lambda: threading.active_count() <= before + 1, "the server does not end the connections")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("path", ["/livez", "/metrics", "/x", "/too-many-headers"])
def test_no_answer_names_the_versions_of_what_serves_it(path: str) -> None:
    port, headers = find_free_port(), 200 if path == "/too-many-headers" else 1
    with (
        serving_probes(f"127.0.0.1:{port}", Probes(CollectorRegistry(), nothing, nothing)),
        socket.create_connection(("127.0.0.1", port)) as client,
    ):
        client.sendall((f"GET {path} HTTP/1.1\r\n" + "a: b\r\n" * headers + "\r\n").encode())
        answer = b"".join(iter(lambda: client.recv(4096), b"")).decode()
    assert "Server: authz\r\n" in answer
    assert [each for each in answer.splitlines() if "Python" in each or "WSGI" in each] == []


def test_a_probe_that_fails_is_a_line_of_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> str:
        raise RuntimeError("broken")

    port = find_free_port()
    with (
        structlog.testing.capture_logs() as lines,
        serving_probes(f"127.0.0.1:{port}", Probes(CollectorRegistry(), nothing, fail)),
    ):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (500, b"failed; the log says why\n")
        connection.close()
    assert [(line["event"], line["path"]) for line in lines] == [("probe failed", "/readyz")]
    assert capfd.readouterr().err == ""
