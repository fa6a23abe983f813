"""Commands of the command line, run in this process or in one of their own."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from contextvars import copy_context
from pathlib import Path
from tempfile import TemporaryFile

import pytest

from authz.cli.main import main
from tests.forkserver import AUTHZ, Process


def run(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command in this process, with more environment variables, if any.

    The result is the one that `run_process` has, in a tenth of the time. `authz serve` runs in a process of
    its own, which may become Envoy.
    """
    command = ["authz", *map(str, arguments)]
    if "serve" in command:
        return _run_forked(command, variables)
    output, errors = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8") for _ in range(2))
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(errors):
        patch.setattr(sys, "argv", command)
        for name, value in variables.items():
            patch.setenv(name, value)
        try:
            copy_context().run(main)
            code = 0
        except SystemExit as ended:
            code = int(ended.code or 0)
    return subprocess.CompletedProcess(command, code, _content(output), _content(errors))


def _run_forked(command: list[str], variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    with TemporaryFile("w+") as output, TemporaryFile("w+") as errors:
        process = Process(
            *command[1:], environ={**os.environ, **variables}, stdout=output.fileno(), stderr=errors.fileno()
        )
        code = process.wait(120)
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(command, code, output.read(), errors.read())


def run_process(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    return subprocess.run([AUTHZ, *arguments], capture_output=True, text=True, timeout=120, check=False)


def _content(stream: io.TextIOWrapper) -> str:
    buffer = stream.detach()  # the log may write to it still, so it stays open
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode()
