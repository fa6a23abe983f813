"""Logs as the reader of standard error sees them: JSON lines, from whomever, and never a reason to wait."""

from __future__ import annotations

import fcntl
import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import grpc
import pytest

from authz.client import CallError, Client
from authz.domain.entities import Course
from authz.domain.mutations import Mutation, Operation
from authz.v1.authorization_pb2 import CheckRequest
from authz.v1.authorization_pb2_grpc import AuthorizationServiceStub
from tests.runtime.test_mutual_tls import certify
from tests.serving import serving
from tests.waiting import until

AT_ONCE = 25
"""Calls in flight; fewer than a server lets one client have."""


def lost_lines(metrics_port: int) -> int:
    """How many lines a server says that it lost."""
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    (value,) = (line.split()[1] for line in lines if line.startswith("authz_log_lines_lost_total "))
    return int(float(value))


def call(channel: grpc.Channel, times: int) -> None:
    """Make calls that are logged, many at a time: checks without a question, which cost a server least."""
    check = AuthorizationServiceStub(channel).Check
    for _ in range(times // AT_ONCE):
        for each in [check.future(CheckRequest(), timeout=60) for _ in range(AT_ONCE)]:
            assert each.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(("workers", "transport"), [("1", "envoy"), ("2", "grpc")])
def test_a_reader_that_does_not_read_holds_nothing_up_and_is_told_what_it_missed(
    sqlite_url: str, free_port: int, workers: str, transport: str
) -> None:
    variables = {"AUTHZ_METRICS_ADDRESS": f"127.0.0.1:{free_port}", "AUTHZ_WORKERS": workers}
    variables["AUTHZ_TRANSPORT"] = transport
    # One connection, and so one of the workers.
    with serving(sqlite_url, **variables) as (process, address), grpc.insecure_channel(address) as channel:
        assert process.stderr is not None
        fcntl.fcntl(process.stderr, fcntl.F_SETPIPE_SZ, 4096)
        calls = 0
        while not lost_lines(free_port):
            call(channel, 1000)
            calls += 1000
        with Client(address) as client:
            assert not client.check("user:maya", "read", "course:c1").allowed
        lost = logged = 0
        while logged + lost < calls:
            line = json.loads(process.stderr.readline())
            logged += line["event"] == "call"
            lost += line.get("lines", 0)
        # Workers tell their supervisor each second.
        until(lambda: lost_lines(free_port) == lost, "the metric says otherwise")
        process.send_signal(signal.SIGTERM)
        lines = [json.loads(line) for line in process.stderr]
        assert process.wait(30) == 0
    assert not any(line["event"] == "call" or "lines" in line for line in lines)
    assert logged + lost == calls


def test_a_reader_that_does_not_read_does_not_hold_up_a_stop(sqlite_url: str) -> None:
    with serving(sqlite_url) as (process, address):
        assert process.stderr is not None
        fcntl.fcntl(process.stderr, fcntl.F_SETPIPE_SZ, 4096)
        with grpc.insecure_channel(address) as channel:
            call(channel, 100)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_a_reader_that_goes_away_does_not_end_the_server(sqlite_url: str) -> None:
    with serving(sqlite_url) as (process, address):
        assert process.stderr is not None
        process.stderr.close()
        with grpc.insecure_channel(address) as channel:
            call(channel, 100)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_no_line_names_a_person_above_level_debug(sqlite_url: str) -> None:
    lines = {}
    for level in ("info", "debug"):
        with serving(sqlite_url, AUTHZ_LOG_LEVEL=level) as (process, address):
            assert process.stderr is not None
            with Client(address, acting_for="user:maya") as client:
                client.check("user:maya", "read", "course:c1")
                with pytest.raises(CallError, match="user:maya"):
                    client.write([Mutation(Operation.CREATE, Course("c1"))])
            process.send_signal(signal.SIGTERM)
            lines[level] = process.stderr.read()
            assert process.wait(30) == 0
    assert "user:maya" in lines["debug"]
    assert "maya" not in lines["info"]
    refusals = [line for line in map(json.loads, lines["info"].splitlines()) if line.get("code")]
    assert {line["caller"] for line in refusals} == {"unauthenticated for user:*"}


LIBRARIES = """
import asyncio, logging, threading, warnings
from authz.runtime.logs import configure_logging, log_uncaught
configure_logging("info")
log_uncaught()
logging.getLogger("sqlalchemy.pool").warning("lost %s", "a connection")
warnings.warn("old")
async def main():
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)
    await asyncio.sleep(0)
asyncio.run(main())
thread = threading.Thread(target=lambda: int("thread"))
thread.start()
thread.join()
class Fails:
    def __del__(self): raise KeyError("unraisable")
Fails()
raise OSError("the end")
"""


def test_what_libraries_and_python_itself_say_is_json_too() -> None:
    command = [sys.executable, "-c", LIBRARIES]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    lines: list[dict[str, Any]] = [json.loads(line) for line in ended.stderr.splitlines()]
    assert ended.returncode == 1
    assert [line.get("logger", "") for line in lines] == [
        "sqlalchemy.pool",
        "py.warnings",
        "asyncio",
        "",
        "",
        "",
    ]
    assert lines[0]["event"] == "lost a connection"
    assert "UserWarning: old" in lines[1]["event"]
    raised = ("ZeroDivisionError", "invalid literal for int", "unraisable", "OSError: the end")
    for line, cause in zip(lines[2:], raised, strict=True):
        assert cause in line["exception"]


def test_what_grpc_meets_on_the_wire_leaves_no_line_that_is_not_json(sqlite_url: str, tmp_path: Path) -> None:
    certificate, key = certify(tmp_path, "localhost", "-addext", "subjectAltName=DNS:localhost")
    variables = {"AUTHZ_TLS_CERTIFICATE_FILE": str(certificate), "AUTHZ_TLS_KEY_FILE": str(key)}
    with serving(sqlite_url, **variables) as (process, address):
        with Client(address, timeout_s=2) as plain, pytest.raises(Exception, match=r".+"):
            plain.check("user:maya", "read", "course:c1")
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        events = [json.loads(line)["event"] for line in process.stderr]
        assert events[-1] == "stopped"


def test_a_start_that_fails_is_a_line_too(sqlite_url: str) -> None:
    command = [sys.executable, "-m", "authz.cli", "serve", "--database", sqlite_url, "--workers", "none"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    (line,) = (json.loads(line) for line in ended.stderr.splitlines())
    assert ended.returncode == 2
    assert (line["event"], line["level"]) == ("cannot start", "error")
    assert "AUTHZ_WORKERS is `none`" in line["error"]
