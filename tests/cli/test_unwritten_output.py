"""What a command prints is written, or the command fails and says so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from authz.cli import UNREAD_EXIT_CODE
from tests.cli.commands import run
from tests.forkserver import without_settings
from tests.serving import served

FULL = Path("/dev/full")
pytestmark = pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")


@pytest.fixture(scope="module")
def here(shared_sqlite_url: str) -> Iterator[tuple[str, str]]:
    """The option that names a server with a course. A process that starts one of its own takes twice as long,
    so only what depends on that does."""
    with served(shared_sqlite_url) as address:
        named = ("--address", address)
        run("course", "create", "algebra", *named)
        run("member", "add", "user:maya", "course:algebra", "student", *named)
        run("course", "update", "algebra", "--state", "active", *named)
        yield named


def run_into_full(*arguments: str, unbuffered: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command whose standard output takes nothing."""
    with FULL.open("w") as full:
        return run_command(*arguments, stdout=full, unbuffered=unbuffered)


def run_unread(*arguments: str, stderr: int | None = None, unbuffered: str = "") -> Any:
    """Run a command whose standard output, and with STDOUT its standard error, nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        return run_command(*arguments, stdout=writer, stderr=stderr or subprocess.PIPE, unbuffered=unbuffered)
    finally:
        os.close(writer)


def run_command(
    *arguments: str,
    closed: str = "",
    stdout: Any = subprocess.PIPE,
    stderr: int = subprocess.PIPE,
    unbuffered: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run a command without the streams that are `closed`, in words of the shell."""
    return subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", sys.executable, "-m", "authz.cli", *arguments],
        env=without_settings() | {"PYTHONUNBUFFERED": unbuffered},
        stdout=stdout,
        stderr=stderr,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("option", [(), ("--json",)], ids=["text", "json"])
def test_a_token_that_cannot_be_printed_is_named_to_be_revoked(
    here: tuple[str, str], option: tuple[str, ...], unbuffered: str
) -> None:
    created = run_into_full("token", "create", "service:x", *option, *here, unbuffered=unbuffered)
    named = re.search(
        "the token is not printed, .* end it with `authz token revoke ([0-9a-f]+)`", created.stderr
    )
    assert created.returncode == 2 and named is not None, created.stderr
    assert len(created.stderr.splitlines()) == 1
    assert run("token", "revoke", named[1], *here).returncode == 0


def test_a_result_that_cannot_be_printed_is_an_error(here: tuple[str, str]) -> None:
    listed = run_into_full("courses", *here, unbuffered="")
    assert listed.returncode == 2
    assert listed.stderr.startswith("error: cannot write to standard output: No space left on device")
    assert len(listed.stderr.splitlines()) == 1


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_version_that_cannot_be_printed_is_an_error(unbuffered: str) -> None:
    told = run_into_full("--version", unbuffered=unbuffered)
    assert (told.returncode, len(told.stderr.splitlines())) == (2, 1), told.stderr
    assert told.stderr.startswith("error: ") and "No space left on device" in told.stderr


CHECK = ("check", "service:x", "read", "course:algebra")


def test_a_check_that_nobody_reads_ends_by_its_answer_and_without_a_word(
    here: tuple[str, str], shared_sqlite_url: str
) -> None:
    allowed = run_unread("check", "user:maya", "read", "course:algebra", *here)
    assert (allowed.returncode, allowed.stderr) == (0, "")
    denied = run_unread("check", "user:maya", "update", "course:algebra", *here)
    assert (denied.returncode, denied.stderr) == (1, "")
    there = ("--database", shared_sqlite_url)
    interrupted = run_unread("check", "user:maya", "read", "course:algebra", *there, unbuffered="1")
    assert (interrupted.returncode, interrupted.stderr) == (UNREAD_EXIT_CODE, "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", [("--help",), ("check", "--help"), ("policy", "export", "--help")])
def test_a_command_with_more_to_print_than_anybody_reads_ends_as_other_programs_do(
    command: tuple[str, ...], unbuffered: str
) -> None:
    ended = run_unread(*command, unbuffered=unbuffered)
    assert (ended.returncode, ended.stderr) == (UNREAD_EXIT_CODE, "")


@pytest.mark.parametrize(
    "command", [(*CHECK, "--address", "127.0.0.1:1"), ("check",), ("member",), ("member", "--json")]
)
def test_an_error_that_nobody_reads_is_not_told_as_a_denial(command: tuple[str, ...]) -> None:
    assert run_unread(*command, stderr=subprocess.STDOUT).returncode == 2
    assert run_command(*command, closed="2> /dev/full").returncode == 2


def test_streams_that_are_closed_are_no_places_for_anything_else(
    here: tuple[str, str], shared_sqlite_url: str
) -> None:
    there = ("--database", shared_sqlite_url)
    denied = run_command(
        *CHECK, *here, closed="2>&-"
    )  # says on standard error that nothing names the subject
    assert (denied.returncode, denied.stdout) == (1, "denied  NOT_A_MEMBER\n")
    unsaid = run_command("courses", *there, closed=">&-")
    assert (unsaid.returncode, len(unsaid.stderr.splitlines())) == (2, 1)
    assert unsaid.stderr.startswith("error: cannot write to standard output: ")
    assert run_command("courses", *there, closed="<&- >&- 2>&-").returncode == 2
    assert run_command("courses", *here).stdout.splitlines()[1].startswith("algebra")


def test_an_applied_folder_states_its_version_although_nobody_reads_the_output(
    tmp_path: Path, here: tuple[str, str]
) -> None:
    """Else the next change to the folder would be refused, as one of an older version."""
    folder = tmp_path / "mine"
    run("policy", "export", folder, *here)
    with (folder / "default.csv").open("a") as file:
        file.write("# mine\n")
    assert run_unread("policy", "apply", str(folder), *here, unbuffered="1").returncode == UNREAD_EXIT_CODE
    assert (folder / ".exported-from").read_text().split()[0] == "2"
