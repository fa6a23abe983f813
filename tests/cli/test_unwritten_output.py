"""What a command prints is written, or the command fails and says so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.commands import run
from tests.forkserver import without_settings

FULL = Path("/dev/full")
pytestmark = pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")


def run_into_full(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command whose standard output takes nothing."""
    environ = without_settings() | variables
    with FULL.open("w") as full:
        return subprocess.run(
            [sys.executable, "-m", "authz.cli", *arguments],
            env=environ,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("option", [(), ("--json",)], ids=["text", "json"])
def test_a_token_that_cannot_be_printed_is_named_to_be_revoked(
    sqlite_url: str, option: tuple[str, ...], unbuffered: str
) -> None:
    here = ("--database", sqlite_url)
    created = run_into_full("token", "create", "service:x", *option, *here, PYTHONUNBUFFERED=unbuffered)
    named = re.search(
        "the token is not printed, .* end it with `authz token revoke ([0-9a-f]+)`", created.stderr
    )
    assert created.returncode == 2 and named is not None, created.stderr
    assert len(created.stderr.splitlines()) == 1
    assert run("token", "revoke", named[1], *here).returncode == 0


def test_a_result_that_cannot_be_printed_is_an_error(sqlite_url: str) -> None:
    run("course", "create", "algebra", "--database", sqlite_url)
    listed = run_into_full("courses", "--database", sqlite_url, PYTHONUNBUFFERED="")
    assert listed.returncode == 2
    assert listed.stderr.startswith("error: cannot write to standard output: No space left on device")
    assert len(listed.stderr.splitlines()) == 1


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_version_that_cannot_be_printed_is_an_error(unbuffered: str) -> None:
    told = run_into_full("--version", PYTHONUNBUFFERED=unbuffered)
    assert (told.returncode, len(told.stderr.splitlines())) == (2, 1), told.stderr
    assert told.stderr.startswith("error: ") and "No space left on device" in told.stderr
