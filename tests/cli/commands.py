"""Commands of the command line, run in this process."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from contextvars import copy_context
from pathlib import Path

import pytest

from authz.cli.main import main
from tests import forkserver


def run(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command in this process, with more environment variables, if any.

    The result is the one that `forkserver.run` has, in less time. `authz serve` runs in a process of its own,
    which may become Envoy.
    """
    command = ["authz", *map(str, arguments)]
    if "serve" in command:
        return forkserver.run(*command[1:], environ={**os.environ, **variables})
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


def _content(stream: io.TextIOWrapper) -> str:
    buffer = stream.detach()  # the log may write to it still, so it stays open
    assert isinstance(buffer, io.BytesIO)
    return buffer.getvalue().decode()
