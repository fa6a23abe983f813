"""systemd accepts the units, and finds their sandbox closed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Set
from contextlib import contextmanager
from ctypes.util import find_library
from functools import cache
from ipaddress import ip_address
from pathlib import Path

import pytest

from authz.client import Client, Course, Mutation, Operation
from authz.runtime.settings import load_settings
from tests.forkserver import AUTHZ, without_settings
from tests.serving import needs_envoy

UNITS = Path(__file__).parents[2] / "deploy/systemd"
ANALYZE = shutil.which("systemd-analyze")
MOST_EXPOSURE = 20
"""In tenths, of 100. A unit without a sandbox has 96."""

pytestmark = pytest.mark.skipif(ANALYZE is None, reason="needs systemd-analyze")


def analyze(*arguments: str | Path) -> str:
    """What systemd-analyze says; it finds no fault."""
    assert ANALYZE is not None
    done = subprocess.run([ANALYZE, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def units(tmp_path: Path) -> list[Path]:
    """The units as they are installed, with the program of this machine; a file for each."""
    made = []
    for unit in sorted(UNITS.iterdir()):
        name = unit.name.replace("@.", "@1.")
        text = re.sub(r"/opt/authz/bin/authz", str(AUTHZ), unit.read_text())
        (tmp_path / name).write_text(text)
        made.append(tmp_path / name)
    return made


def test_systemd_finds_no_fault_in_the_units(units: list[Path]) -> None:
    assert [unit.name for unit in units] == ["authz-follow.service", "authz-serve@1.service"]
    told = analyze("verify", "--man=no", *units)
    assert not re.search(r"authz-\S+\.service:\d+:", told), told


def test_every_instance_of_a_unit_has_an_address_of_its_own() -> None:
    instances = {"authz-follow.service": [""], "authz-serve@.service": ["1", "9", "10", "254"]}
    addresses = []
    for unit, names in instances.items():
        (stated,) = re.findall("^Environment=AUTHZ_METRICS_ADDRESS=(.*)$", (UNITS / unit).read_text(), re.M)
        for name in names:
            environ = {"AUTHZ_METRICS_ADDRESS": stated.replace("%i", name)}
            addresses.append(load_settings(environ=environ).metrics_address)
    for address in addresses:
        host, _, port = address.rpartition(":")
        assert ip_address(host).is_loopback
        assert 0 < int(port) < 1 << 16
    assert len(set(addresses)) == len(addresses)


def test_the_sandbox_of_each_unit_is_closed(units: list[Path]) -> None:
    for unit in units:
        analyze("security", "--offline=true", f"--threshold={MOST_EXPOSURE}", unit)


@pytest.mark.skipif(find_library("seccomp") is None, reason="needs libseccomp")
@needs_envoy
def test_no_process_makes_a_system_call_that_its_unit_forbids(
    units: list[Path], postgresql_url: str, tmp_path: Path
) -> None:
    follow, serve = units  # over PostgreSQL: as root, which the units are not, SQLite changes owners
    with (
        filtered(follow, "follow", postgresql_url, tmp_path) as follower,
        filtered(serve, "serve", postgresql_url, tmp_path, "--no-follow", "--transport=envoy") as server,
    ):
        line = await_line(server, '"event":"serving"')
        assert server.stderr is not None
        threading.Thread(target=server.stderr.read, daemon=True).start()
        with Client(json.loads(line)["address"], timeout_s=30) as client:
            client.write([Mutation(Operation.CREATE, Course(id="c"))])
            assert not client.check("user:maya", "read", "course:c")
        for process in (server, follower):
            process.terminate()
            assert process.wait(60) == 0


@contextmanager
def filtered(
    unit: Path, command: str, url: str, folder: Path, *arguments: str
) -> Iterator[subprocess.Popen[str]]:
    """The process of a unit, which a system call that the unit forbids kills."""
    environ = without_settings() | {
        "AUTHZ_ADDRESS": "127.0.0.1:0",
        "AUTHZ_DATABASE_URL": url,
        "AUTHZ_REPLICA_DIR": str(folder / "replica"),
    }
    launcher = [sys.executable, "-m", "tests.deploy.seccomp", ",".join(sorted(allowed_by(unit)))]
    process = subprocess.Popen(
        [*launcher, str(AUTHZ), command, *arguments], env=environ, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def allowed_by(unit: Path) -> Set[str]:
    """The system calls that a unit allows. Source: systemd.exec(5), `SystemCallFilter=`."""
    found = calls_of("@default")
    for line in re.findall("^SystemCallFilter=(.*)$", unit.read_text(), re.M):
        named = set().union(*map(calls_of, line.removeprefix("~").split()))
        found = found - named if line.startswith("~") else found | named
    return found


@cache
def calls_of(name: str) -> Set[str]:
    """A system call, or those of a group."""
    if not name.startswith("@"):
        return {name}
    lines = [line.strip() for line in analyze("syscall-filter", name).splitlines() if line.startswith("    ")]
    return set().union(*(calls_of(line) for line in lines if not line.startswith("#")))


def await_line(process: subprocess.Popen[str], part: str) -> str:
    """The first line of its log with this part."""
    assert process.stderr is not None
    for line in process.stderr:
        if part in line:
            return line
    raise AssertionError(f"it ended with {process.wait()}")
