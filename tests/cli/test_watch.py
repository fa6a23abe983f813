"""`authz watch` as a script uses it."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from authz.client import Client
from authz.domain.entities import Course, CourseKey, Membership
from authz.domain.ids import course_scope, parse_subject
from authz.domain.mutations import Mutation, Operation
from tests.cli.commands import run
from tests.forkserver import AUTHZ
from tests.serving import served

MAYA = Membership(subject=parse_subject("user:maya"), scope=course_scope("alg"), role="student")


@pytest.fixture(scope="module")
def address(shared_sqlite_url: str) -> Iterator[str]:
    """A running service, one for all tests: each watches from a token of its own."""
    with served(shared_sqlite_url) as address:
        yield address


def test_changes_are_printed_as_lines_with_the_token_to_go_on_from(address: str) -> None:
    with Client(address) as client:
        first = client.write([Mutation(Operation.TOUCH, Course(id="alg"))])
        second = client.write([Mutation(Operation.CREATE, MAYA), Mutation(Operation.TOUCH, Course(id="b"))])
        third = client.write([Mutation(Operation.DELETE, CourseKey("alg"))])
    asked = ("watch", "--after", first, "--address", address)
    lines = run(*asked, "--count", "2").stdout.splitlines()
    assert [line.split("\t")[1:] for line in lines] == [
        ["TOUCH", "course", "course:b", "unauthenticated", second],
        ["CREATE", "membership", "membership user:maya student in course:alg", "unauthenticated", second],
        ["DELETE", "membership", "membership user:maya student in course:alg", "unauthenticated", third],
        ["DELETE", "course", "course:alg", "unauthenticated", third],
    ]
    chosen = ("--scope", "course:alg", "--kind", "membership", "--json", "--count", "2")
    watched = run(*asked, *chosen, "--scope", "course:agl")
    assert watched.stderr.splitlines()[-1] == "note: there is no course:agl; compare the id"
    told = [json.loads(line) for line in watched.stdout.splitlines()]
    assert [each["mutations"][0]["operation"] for each in told] == ["CREATE", "DELETE"]
    assert [each["token"] for each in told] == [second, third]


def test_what_cannot_be_watched_is_said(address: str) -> None:
    wrong = run("watch", "--after", "nonsense", "--address", address)
    assert wrong.returncode == 2
    assert "error: after is not a token of this service, or it is of another database;" in wrong.stderr


def test_ctrl_c_ends_a_watch_cleanly_after_what_it_has_seen(address: str) -> None:
    with Client(address) as client:
        token = client.write([Mutation(Operation.TOUCH, Course(id="alg"))])
        command: list[str | Path] = [AUTHZ, "watch", "--after", token, "--address", address]
        # A run of the tests in the background ignores SIGINT, and so would the command.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        finally:
            signal.signal(signal.SIGINT, before)
        with process:
            client.write([Mutation(Operation.TOUCH, Course(id="c"))])
            assert process.stdout is not None
            assert "course:c" in process.stdout.readline()
            process.send_signal(signal.SIGINT)
            try:
                output, errors = process.communicate(timeout=60)
            finally:
                process.kill()  # else leaving the block would wait for one that does not heed the signal
    assert (process.returncode, output, errors) == (0, "", "")
