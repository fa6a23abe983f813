"""`authz serve` as a process of its own, to be signalled."""

from __future__ import annotations

import fcntl
import itertools
import os
import re
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO

import pytest

from authz.runtime.embedded import embedded
from authz.runtime.envoy import why_not_envoy
from authz.runtime.settings import load_settings
from tests import forkserver
from tests.forkserver import Process, without_settings

WHY_NOT_ENVOY = why_not_envoy(load_settings(environ={}))
"""Why Envoy cannot serve here; empty if it can. Without it, `authz serve` serves over grpc.aio."""
needs_envoy = pytest.mark.skipif(bool(WHY_NOT_ENVOY), reason=WHY_NOT_ENVOY)
"""Skips a test where Envoy cannot serve. Tests with a parameter that names Envoy have it already."""
both_transports = pytest.mark.usefixtures("transport")
"""Runs a test over each transport. Only the servers that it starts for itself are of that transport."""
over_grpc = pytest.mark.usefixtures("over_grpc")
"""Runs a test over grpc.aio, since no transport takes part in what it tests."""

_ports = itertools.count(10_000 + os.getpid() % 200 * 100)


def find_free_port() -> int:
    """A port that no process listens at, and that no other process of tests gets while this one runs.

    It is below those that the kernel gives to connections, so that a server that stops and starts again
    finds it free.
    """
    for port in _ports:
        with socket.socket() as probe, suppress(OSError):
            fcntl.lockf(_port_locks(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


@cache
def _port_locks() -> IO[bytes]:
    """A file of which each process of tests locks the bytes whose numbers are those of its ports."""
    return Path(tempfile.gettempdir(), f"authz-test-ports-{os.getuid()}").open("ab")


@contextmanager
def replica_folder(url: str) -> Iterator[str]:
    """Where a server of this database keeps its replica: where it would itself, or out of our folders."""
    if url.startswith("sqlite"):
        yield ""
        return
    with tempfile.TemporaryDirectory(prefix="authz-replica-") as folder:
        yield folder


@contextmanager
def serving(url: str, **variables: str) -> Iterator[tuple[Process, str]]:
    """A running server and its address. Killed at the end, if it still runs."""
    with replica_folder(url) as folder, _serving(url, {"AUTHZ_REPLICA_DIR": folder, **variables}) as running:
        yield running


@contextmanager
def _serving(url: str, variables: dict[str, str]) -> Iterator[tuple[Process, str]]:
    environ = without_settings()
    environ |= {"AUTHZ_ADDRESS": "127.0.0.1:0", "AUTHZ_DATABASE_URL": url, **variables}
    process = Process("serve", environ=environ, stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            found = re.search(r'"address": ?"([^"]+)"', line)
            if found:
                yield process, found[1]
                return
        raise AssertionError("the server did not start")
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


@contextmanager
def served(url: str, **settings: str) -> Iterator[str]:
    """The address of a server: in a thread of this process, unless Envoy serves, which needs a process."""
    with replica_folder(url) as folder:
        given = {"address": "127.0.0.1:0", "database_url": url, "replica_dir": folder, "log_level": "error"}
        given |= {"erasure_grace_s": "0", **settings}
        if forkserver.TRANSPORT != "envoy":
            with embedded(load_settings(given, environ={})) as address:
                yield address
            return
        # The line with the address is of the level `info`. A server in this process gives no call a grace.
        given |= {"transport": forkserver.TRANSPORT, "log_level": "info", "stop_grace_s": "0"}
        variables = {f"AUTHZ_{name.upper()}": value for name, value in given.items()}
        with serving(url, **variables) as (process, address):
            drain(process)
            yield address
            process.send_signal(signal.SIGTERM)
            process.wait()


def drain(process: Process) -> None:
    """Read the log of a server to its end, so that the server never waits for a reader."""
    assert process.stderr is not None
    threading.Thread(target=process.stderr.read, daemon=True).start()


def run(command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, without the variables of another server."""
    environ = without_settings()
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
