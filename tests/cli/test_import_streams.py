"""Every import reads a file, a pipe and standard input alike."""

from __future__ import annotations

import io
import os
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest

from tests.cli.commands import run
from tests.cli.test_imports import write_roster
from tests.serving import served

Way = Literal["fd", "fifo", "stdin"]
MAPPED = ("--role-map", "proctor=auditor")
ROWS = "id,course_id\nm1,alg\nm2,alg\n"
LINES = '\n{"id": "m1", "course_id": "alg"}\n{"id": "m2", "course_id": "alg"}\n'


def zip_of_roster(folder: Path) -> bytes:
    roster, content = write_roster(folder / "roster", "active"), io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for each in roster.iterdir():
            archive.write(each, each.name)
    return content.getvalue()


def export_of_subject(address: str) -> bytes:
    run("course", "create", "alg", "--state", "active", "--address", address)
    run("member", "add", "user:maya", "course:alg", "student", "--address", address)
    printed = run("privacy", "export", "user:maya", "--address", address)
    assert printed.returncode == 0, printed.stderr
    return printed.stdout.encode()


def _write(descriptor: int, content: bytes) -> None:
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content)


@contextmanager
def given(way: Way, content: bytes, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The path by which a command reads the content, of which a pipe holds but a part at once."""
    if way == "stdin":
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        yield "-"
        return
    if way == "fifo":
        path = str(folder / "fifo")
        os.mkfifo(path)
        thread = threading.Thread(target=Path(path).write_bytes, args=(content,), daemon=True)
    else:
        readable, writable = os.pipe()
        path = f"/dev/fd/{readable}"
        thread = threading.Thread(target=_write, args=(writable, content), daemon=True)
    thread.start()
    yield path
    if way == "fd":
        os.close(readable)


@pytest.fixture
def address(empty_sqlite_url: str) -> Iterator[str]:
    with served(empty_sqlite_url) as serving:
        yield serving


WAYS = pytest.mark.parametrize("way", ["fd", "fifo", "stdin"])


@WAYS
@pytest.mark.parametrize("text", [ROWS, LINES, "\ufeff" + ROWS, "\ufeff" + LINES])
def test_resources(
    way: Way, text: str, tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("course", "create", "alg", "--state", "active", "--address", address)
    with given(way, text.encode(), tmp_path, monkeypatch) as path:
        done = run("import", "resources", path, "--type", "material", "--address", address)
    assert (done.returncode, done.stdout) == (0, "written 2, unchanged 0, failed 0\n"), done.stderr


@WAYS
def test_a_roster(way: Way, tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with given(way, zip_of_roster(tmp_path), tmp_path, monkeypatch) as path:
        done = run("import", "oneroster", path, *MAPPED, "--address", address)
    assert done.returncode == 0, done.stderr
    again = run("import", "oneroster", tmp_path / "roster", *MAPPED, "--address", address)
    assert again.stdout.startswith("written 0, unchanged ")


@WAYS
def test_an_export_of_a_subject(
    way: Way, tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with given(way, export_of_subject(address), tmp_path, monkeypatch) as path:
        done = run("import", "subject", path, "--address", address)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("written 0, unchanged ")


def test_a_fault_of_standard_input_is_told_with_its_line(
    tmp_path: Path, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = b"id,course_id\n" + b"m1,nowhere\n" * 20_000 + b"m\xff,alg\n"
    with given("stdin", content, tmp_path, monkeypatch) as path:
        done = run("import", "resources", path, "--type", "material", "--address", address)
    assert (done.returncode, "stdin:20002: is not UTF-8 (byte 0xff)" in done.stderr) == (2, True)
    with given("stdin", ROWS.encode(), tmp_path, monkeypatch) as path:
        done = run("import", "resources", path, "--type", "material", "--address", address)
    assert (done.returncode, "failed: stdin:2: " in done.stderr) == (1, True), done.stderr


@pytest.mark.parametrize("kind", ["resources", "oneroster", "subject"])
def test_what_is_not_there_is_told(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a message shows no long path whole
    done = run("import", kind, "none")
    assert (done.returncode, "`none` is " in done.stderr) == (2, True)
