"""What hangs is noticed from outside: by systemd's watchdog, or by the end of the process."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from authz.domain.entities import Course
from authz.domain.mutations import LogTail
from authz.replica import follower as follower_module
from authz.runtime.liveness import STUCK
from tests.databases import create_sqlite
from tests.replica.conftest import following
from tests.runtime.test_follow import Machine
from tests.store.directory import create, open_with, write
from tests.waiting import suspend, until


@pytest.fixture
def machine(sqlite_url: str, tmp_path: Path, free_port: int) -> Iterator[Machine]:
    """Nothing runs yet."""
    made = Machine(sqlite_url, tmp_path, free_port)
    yield made
    made.kill()


@pytest.mark.parametrize("command", ["follow", "serve", "serve --workers 2"])
def test_systemd_hears_of_a_process_until_it_hangs(machine: Machine, tmp_path: Path, command: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(60)
        watched = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "30000000"}
        process = psutil.Process(machine.start(*command.split(), **watched).pid)
        told = {systemd.recv(64)}
        while b"READY=1" not in told:
            told.add(systemd.recv(64))
        assert told == {b"WATCHDOG=1", b"READY=1"}
        suspend(process)
        systemd.settimeout(3)
        with pytest.raises(TimeoutError):
            while systemd.recv(64):
                pass
        process.resume()
        systemd.settimeout(60)
        assert systemd.recv(64) == b"WATCHDOG=1"
        process.terminate()
        while systemd.recv(64) != b"STOPPING=1":
            pass


def test_a_follower_that_gets_no_further_ends_its_process(sqlite_url: str, tmp_path: Path) -> None:
    program = """
import sys, time, uvloop
from authz.replica import follower
from authz.runtime.follow import follow
from authz.runtime.logs import configure_logging
from authz.runtime.settings import load_settings
from authz.store.directory import SqlDirectory
follower._STEP_S = 0.05
SqlDirectory.follow = lambda *_: time.sleep(600)
given = {"database_url": sys.argv[1], "replica_dir": sys.argv[2]}
configure_logging("info")
uvloop.run(follow(load_settings(given, environ={})))
"""
    command = [sys.executable, "-c", program, sqlite_url, str(tmp_path / "r")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == STUCK
    assert "the follower makes no progress" in ended.stderr


def test_a_follower_is_overdue_only_while_a_step_takes_too_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_with(create_sqlite(tmp_path / "authz.db"))
    write(store, create(Course(id="c")))
    follow, goes_on, asked = store.directory.follow, threading.Event(), threading.Event()

    def slow(after: int, limit: int) -> LogTail:
        asked.set()
        assert goes_on.wait(30)
        return follow(after, limit)

    with following(store, tmp_path / "r") as follower:
        assert not follower.is_overdue()
        store.directory.follow = slow  # type: ignore[method-assign]
        monkeypatch.setattr(follower_module, "_STEP_S", 0.01)
        until(lambda: asked.is_set() and follower.is_overdue(), "it is overdue")
        monkeypatch.undo()
        goes_on.set()
        until(lambda: not follower.is_overdue(), "it gets further")
    assert not follower.is_overdue()
    store.close()
