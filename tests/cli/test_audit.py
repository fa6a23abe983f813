"""`authz audit`, against a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from authz.runtime.embedded import embedded
from authz.runtime.settings import load_settings
from tests.cli.commands import run

HISTORY = (
    "course create alg --state active",
    "member add user:maya course:alg student",
    "member suspend user:maya course:alg --reason report-17",
    "member remove user:maya course:alg --role student",
)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server in which a student was suspended and removed."""
    url = f"sqlite:///{tmp_path_factory.mktemp('audit')}/authz.db"
    settings = load_settings(
        {"address": "127.0.0.1:0", "database_url": url, "log_level": "error"}, environ={}
    )
    with embedded(settings) as found:
        for command in HISTORY:
            done = run(*command.split(), "--address", found)
            assert done.returncode == 0, done.stderr
        yield found


def test_who_suspended_her_and_why_is_printed(address: str) -> None:
    printed = run("audit", "changes", "--subject", "user:maya", "--address", address)
    assert printed.returncode == 0, printed.stderr
    heading, *rows = printed.stdout.splitlines()
    assert heading.split() == ["time", "revision", "who", "did", "record", "changed", "reason"]
    assert [row.split()[3] for row in rows] == ["deleted", "changed", "created"]
    assert "status ACTIVE > SUSPENDED" in rows[1]
    assert rows[1].endswith("report-17")
    assert "unauthenticated" in rows[1]
    assert "membership user:maya student in course:alg" in rows[1]


def test_json_has_a_change_a_line_with_both_records(address: str) -> None:
    printed = run(
        "audit", "changes", "--scope", "course:alg", "--oldest-first", "--json", "--address", address
    )
    created, enrolled, suspended, removed = map(json.loads, printed.stdout.splitlines())
    assert (created["operation"], created["key"], created["before"]) == ("CREATE", "course:alg", None)
    assert suspended["before"] == enrolled["after"]
    assert removed["before"] == suspended["after"]
    assert removed["after"] is None


def test_what_is_printed_is_bounded(address: str) -> None:
    one = run("audit", "changes", "--limit", "1", "--address", address).stdout.splitlines()
    assert len(one) == 2
    everything = run("audit", "changes", "--limit", "0", "--address", address).stdout.splitlines()
    assert len(everything) > len(HISTORY)


def test_a_time_that_cannot_be_read_is_refused(address: str) -> None:
    failed = run("audit", "changes", "--since", "yesterday", "--address", address)
    assert (failed.returncode, failed.stdout) == (2, "")
    assert failed.stderr.startswith("error: --since `yesterday` is not a time")
