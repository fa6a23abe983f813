"""What depends on the time is asked of the server, whose clock decides, not of the machine of the command."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from authz.domain.instants import US_PER_S, format_instant
from tests.callers import grant
from tests.cli.commands import run
from tests.issuer import Issuer
from tests.service import serve

YEAR_US = 365 * 86_400 * US_PER_S
LATE = {
    "account": ("account", "suspend", "user:maya", "--until"),
    "suspension": ("member", "suspend", "user:maya", "course:alg", "--until"),
    "membership": ("member", "add", "user:maya", "course:alg", "auditor", "--until"),
    "token": ("token", "create", "service:app", "--expires"),
}


@pytest.mark.parametrize("command", LATE.values(), ids=LATE)
async def test_a_time_that_is_over_by_the_clock_of_the_server_is_refused(
    sqlite_url: str, command: tuple[str, ...]
) -> None:
    here = time.time_ns() // 1000
    async with serve(sqlite_url, now=here + 2 * YEAR_US) as service:
        to = ("--address", service.address)
        for made in (("course", "create", "alg"), ("member", "add", "user:maya", "course:alg", "student")):
            assert (await asyncio.to_thread(run, *made, *to)).returncode == 0
        over = await asyncio.to_thread(run, *command, format_instant(here + YEAR_US), *to)
        assert over.returncode == 2
        assert "is in the past, so this would have no effect; give a later time" in over.stderr
        assert f"(it is {format_instant(service.now)})" in over.stderr
        later = await asyncio.to_thread(run, *command, format_instant(here + 3 * YEAR_US), *to)
        assert later.returncode == 0, later.stderr


@pytest.mark.parametrize("command", [LATE["account"], LATE["suspension"], LATE["membership"]])
async def test_a_time_that_is_over_only_here_counts(sqlite_url: str, command: tuple[str, ...]) -> None:
    here = time.time_ns() // 1000
    async with serve(sqlite_url, now=here - 2 * YEAR_US) as service:
        to = ("--address", service.address)
        for made in (("course", "create", "alg"), ("member", "add", "user:maya", "course:alg", "student")):
            assert (await asyncio.to_thread(run, *made, *to)).returncode == 0
        later = await asyncio.to_thread(run, *command, format_instant(here - YEAR_US), *to)
        assert later.returncode == 0, later.stderr


async def test_who_may_not_read_is_told_by_the_clock_of_this_machine(sqlite_url: str, tmp_path: Path) -> None:
    issuer, file = Issuer(), tmp_path / "token"
    file.write_text(issuer.jwt("app"))
    grant(sqlite_url, {"service:app": "notebook_service"})
    async with serve(sqlite_url, now=time.time_ns() // 1000, **issuer.settings(tmp_path)) as service:
        to = ("--address", service.address, "--token-file", file)
        over = await asyncio.to_thread(run, *LATE["account"], "2020-01-01", *to)
        assert over.returncode == 2
        assert "--until `2020-01-01` is in the past" in over.stderr


async def test_a_row_that_ends_access_ends_it_at_once_also_if_this_clock_is_ahead(
    sqlite_url: str, tmp_path: Path
) -> None:
    def import_roster(enrollments: str) -> None:
        (tmp_path / "manifest.csv").write_text(
            "propertyName,value\nmanifest.version,1.0\noneroster.version,1.1\nfile.classes,bulk\n"
            "file.enrollments,bulk\nfile.users,absent\nfile.academicSessions,absent\n"
        )
        (tmp_path / "classes.csv").write_text("sourcedId,title\nalg,Algebra\n")
        (tmp_path / "enrollments.csv").write_text(
            f"sourcedId,classSourcedId,userSourcedId,role,dateLastModified\n{enrollments}"
        )
        imported = run("import", "oneroster", tmp_path, "--allow-removals", "--address", service.address)
        assert imported.returncode == 0, imported.stderr

    async with serve(sqlite_url, now=time.time_ns() // 1000 - YEAR_US) as service:
        question = ("check", "user:maya", "read", "course:alg", "--address", service.address)
        await asyncio.to_thread(import_roster, "e1,alg,maya,student,2001-01-01T00:00:00Z\n")
        assert (await asyncio.to_thread(run, *question)).stdout.startswith("allowed")
        await asyncio.to_thread(import_roster, "")
        assert (await asyncio.to_thread(run, *question)).stdout.startswith(
            "denied  MEMBERSHIP_NOT_EFFECTIVE (ENDED)"
        )
