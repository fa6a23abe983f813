"""The first caller is let in on the machine with the database, also while a server that refuses it runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from authz.client import CallError, Client
from tests.callers import grant
from tests.forkserver import run
from tests.issuer import Issuer
from tests.service import Service, serve

ISSUER = Issuer()


@pytest.fixture
async def secured(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Service]:
    """A server at which no caller may do much."""
    grant(sqlite_url, {"service:other": "checker"})
    async with serve(sqlite_url, now=time.time_ns() // 1000, **ISSUER.settings(tmp_path)) as each:
        yield each


async def test_who_may_open_the_database_lets_in_the_first_caller(secured: Service, sqlite_url: str) -> None:
    def policy_version() -> int:
        with Client(secured.address, token=ISSUER.jwt("editor")) as client:
            return client.policies.active_number()

    with pytest.raises(CallError, match="`service:editor` may not call"):
        await asyncio.to_thread(policy_version)
    command = ("admin", "grant", "service:editor", "policy_editor", "--database", sqlite_url)
    ended = await asyncio.to_thread(run, *command)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "service:editor has the role policy_editor on the platform\n"
    async with asyncio.timeout(20):
        while True:
            try:
                assert await asyncio.to_thread(policy_version) == 1
            except CallError:
                await asyncio.sleep(0.1)
            else:
                return


async def test_a_role_that_is_not_of_the_platform_is_refused(sqlite_url: str) -> None:
    command = ("admin", "grant", "service:x", "student", "--database", sqlite_url)
    ended = await asyncio.to_thread(run, *command)
    assert ended.returncode == 2
    assert "`student` belongs to a course" in ended.stderr


async def test_a_grant_that_is_repeated_changes_nothing_and_lifts_no_suspension(sqlite_url: str) -> None:
    def did(*command: str) -> tuple[int, str]:
        ended = run(*command, "--database", sqlite_url)
        return ended.returncode, ended.stderr

    command = ("admin", "grant", "service:ops", "operator")
    assert [did(*command) for _ in range(2)] == [(0, ""), (0, "")]
    changes = run("audit", "changes", "--json", "--database", sqlite_url).stdout
    assert changes.count('"key":"membership service:ops') == 1
    assert (
        did("member", "suspend", "service:ops", "platform", "--until", "2096-01-01")[0] == 2
    )  # the last one
    assert did("admin", "grant", "service:other", "operator") == (0, "")
    assert did("member", "suspend", "service:ops", "platform", "--until", "2096-01-01") == (0, "")
    code, told = did(*command)
    assert (code, "exists; update it" in told) == (2, True)
