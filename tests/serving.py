"""`authz serve` as a process of its own, to be signalled."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

AUTHZ = Path(sys.executable).parent / "authz"


@contextmanager
def replica_folder(url: str) -> Iterator[str]:
    """Where a server of this database keeps its replica: where it would itself, or out of our folders."""
    if url.startswith("sqlite"):
        yield ""
        return
    with tempfile.TemporaryDirectory(prefix="authz-replica-") as folder:
        yield folder


@contextmanager
def serving(url: str, **variables: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running server and its address. Killed at the end, if it still runs."""
    with replica_folder(url) as folder, _serving(url, {"AUTHZ_REPLICA_DIR": folder, **variables}) as running:
        yield running


@contextmanager
def _serving(url: str, variables: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    environ = {k: v for k, v in os.environ.items() if not k.startswith("AUTHZ_")}
    environ |= {"AUTHZ_ADDRESS": "127.0.0.1:0", "AUTHZ_DATABASE_URL": url, **variables}
    process = subprocess.Popen([AUTHZ, "serve"], env=environ, stderr=subprocess.PIPE, text=True)
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
