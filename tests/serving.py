"""`authz serve` as a process of its own, to be signalled."""

from __future__ import annotations

import itertools
import os
import re
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.forkserver import Process

AUTHZ = Path(sys.executable).parent / "authz"
_ports = itertools.count(10_000 + os.getpid() % 200 * 100)


def find_free_port() -> int:
    """A port that no process listens at.

    It is below those that the kernel gives to connections, so that a server that stops and starts again
    finds it free; and it follows from our process id, so that runs of tests beside this one find others.
    """
    for port in _ports:
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


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
    environ = {k: v for k, v in os.environ.items() if not k.startswith("AUTHZ_")}
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


def run(command: Sequence[str | Path]) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, without the variables of another server."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("AUTHZ_")}
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
