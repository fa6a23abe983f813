"""The sinks of the decision log: no line is torn, lost or written twice, and a loss is counted."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Collection, Sequence
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import asdict, replace
from prometheus_client import generate_latest
from structlog.testing import capture_logs

from authz.audit import decision_log
from authz.audit.decision_log import DecisionLog
from authz.audit.lines import LinesFile, StandardOutput
from authz.domain.decision_log import DecisionEntry
from authz.domain.erasures import Pseudonyms, subject_mac
from authz.domain.errors import malformed
from authz.domain.ids import Subject, parse_subject
from authz.telemetry.metrics import REGISTRY
from tests.cli.commands import run

AT_ONCE = 40
WRITERS, BATCHES = 3, 25
PSEUDONYM = f"user:erased-{7:032x}"


def entry(number: int) -> DecisionEntry:
    return DecisionEntry(
        decision_id=f"d-{number}",
        at=1_700_000_000_000_000 + number,
        method="Check",
        code="OK",
        caller="service:notebooks",
        subject="user:maya",
        action="read",
        resource="notebook:nb-7",
        allowed=True,
        duration_us=75,
    )


def ids_in(*files: Path) -> list[str]:
    return [json.loads(line)["decision_id"] for file in files for line in file.read_text().splitlines()]


def write_many(path: Path, first: int) -> None:
    sink = LinesFile(path, max_bytes=65_536, kept=100)
    for batch in range(BATCHES):
        sink.write([entry(first + batch * AT_ONCE + number) for number in range(AT_ONCE)])


def test_writers_that_share_a_file_lose_and_tear_nothing_as_it_rotates(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    firsts = [writer * BATCHES * AT_ONCE for writer in range(WRITERS)]
    writers = [threading.Thread(target=write_many, args=(path, first)) for first in firsts]
    for each in writers:
        each.start()
    for each in writers:
        each.join()
    files = list(tmp_path.iterdir())
    assert len(files) > 10
    assert sorted(ids_in(*files)) == sorted(f"d-{number}" for number in range(WRITERS * BATCHES * AT_ONCE))
    assert max(file.stat().st_size for file in files) <= 65_536
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_a_subject_is_replaced_in_all_files_while_others_write_and_no_line_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    maya, pseudonym = parse_subject("user:maya"), parse_subject("user:erased-7")
    write_many(path, 0)
    writer = threading.Thread(target=write_many, args=(path, BATCHES * AT_ONCE))
    writer.start()
    replaced = 0
    while writer.is_alive():
        replaced += LinesFile(path, max_bytes=0, kept=0).replace(maya, pseudonym)
    replaced += LinesFile(path, max_bytes=0, kept=0).replace(maya, pseudonym)
    files = [*tmp_path.iterdir()]
    assert len(files) > 3
    assert sorted(ids_in(*files)) == sorted(f"d-{number}" for number in range(2 * BATCHES * AT_ONCE))
    assert replaced == 2 * BATCHES * AT_ONCE
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert [file for file in files if b"maya" in file.read_bytes()] == []


def test_only_the_lines_of_the_subject_are_changed(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    hers = replace(entry(1), person="user:maya", subject="user:omar", request_id='her "call"')
    others = [replace(entry(2), subject="user:maya.khan", request_id="r"), replace(entry(3), subject="")]
    LinesFile(path, max_bytes=65_536, kept=1).write([hers, *others])
    first, *rest = path.read_text().splitlines()
    path.with_name("decisions.jsonl.new").write_text("left by a call that was killed")
    maya, pseudonym = parse_subject("user:maya"), parse_subject("user:erased-7")
    assert LinesFile(path, max_bytes=0, kept=0).replace(maya, pseudonym) == 1
    changed = {"person": "user:erased-7", "request_id": ""}
    now, *still = path.read_text().splitlines()
    assert json.loads(now) == json.loads(first) | changed
    assert still == rest
    assert [*tmp_path.iterdir()] == [path]


def pseudonyms(subject: str, pseudonym: str) -> Pseudonyms:
    key = b"k" * 32
    return Pseudonyms(key, {subject_mac(key, parse_subject(subject)): parse_subject(pseudonym)})


@pytest.mark.parametrize("missing", ["", "decisions.jsonl", "decisions.jsonl.1", "decisions.jsonl.2"])
def test_erased_subjects_are_found_in_every_file_that_is_left(tmp_path: Path, missing: str) -> None:
    path = tmp_path / "decisions.jsonl"
    sink = LinesFile(path, max_bytes=1, kept=2)
    for number in range(3):
        sink.write([replace(entry(number), subject=f"user:{number}"), entry(number)])
    if missing:
        tmp_path.joinpath(missing).unlink()
    left = [*tmp_path.iterdir()]
    of_others = [tmp_path / name for name in ("decisions.jsonl.of-somebody", "decisions.jsonl.1.gz", "7")]
    for each in of_others:
        each.write_text("user:maya")
    erased = LinesFile(path, max_bytes=1, kept=2).erase(pseudonyms("user:maya", PSEUDONYM))
    assert erased == len(left)
    assert not any(b"user:maya" in each.read_bytes() for each in left)
    assert all(PSEUDONYM.encode() in each.read_bytes() for each in left)
    assert {each.read_text() for each in of_others} == {"user:maya"}


def test_erased_subjects_are_found_while_others_write_and_rotate(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    write_many(path, 0)
    writer = threading.Thread(target=write_many, args=(path, BATCHES * AT_ONCE))
    writer.start()
    wanted = pseudonyms("user:maya", PSEUDONYM)
    erased = 0
    while writer.is_alive():
        erased += LinesFile(path, max_bytes=0, kept=0).erase(wanted)
    erased += LinesFile(path, max_bytes=0, kept=0).erase(wanted)
    assert erased == 2 * BATCHES * AT_ONCE
    files = [*tmp_path.iterdir()]
    assert sorted(ids_in(*files)) == sorted(f"d-{number}" for number in range(2 * BATCHES * AT_ONCE))
    assert [file for file in files if b"maya" in file.read_bytes()] == []


def test_a_line_that_another_process_ends_in_a_file_that_was_rotated_is_found(tmp_path: Path) -> None:
    path, rotated = tmp_path / "decisions.jsonl", tmp_path / "decisions.jsonl.1"
    rotated.write_text('{"subject":"user:omar"}\n')

    class GrowingLate(Pseudonyms, frozen=True):
        def of(self, subject: Subject | str) -> Subject | None:
            """Called once the rotated file was read."""
            if str(subject) == "user:omar" and b"maya" not in rotated.read_bytes():
                with rotated.open("a") as file:
                    file.write('{"subject":"user:maya"}\n')
            return Pseudonyms.of(self, subject)

    erased = GrowingLate(**asdict(pseudonyms("user:maya", PSEUDONYM)))
    assert LinesFile(path, max_bytes=0, kept=1).erase(erased) == 1
    assert b"maya" not in rotated.read_bytes()


REPLACING = """
import os, signal, sys, threading
from pathlib import Path
from authz.audit.lines import LinesFile
from authz.domain.ids import Subject, parse_subject
threading.Timer(float(sys.argv[2]), os.kill, (os.getpid(), signal.SIGKILL)).start()
maya, m = map(parse_subject, ("user:maya", "user:m"))
while True:
    for old, new in ((maya, m), (m, maya)):
        LinesFile(Path(sys.argv[1]), max_bytes=0, kept=0).replace(old, new)
"""


def test_a_process_that_is_killed_while_it_replaces_loses_no_line(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    write_many(path, 0)
    for number in range(5):
        command = [sys.executable, "-c", REPLACING, str(path), str(0.05 + number / 100)]
        killed = subprocess.run(command, check=False)
        assert killed.returncode == -signal.SIGKILL
    sink = LinesFile(path, max_bytes=0, kept=0)
    for subject in ("user:maya", "user:m"):
        sink.erase(pseudonyms(subject, PSEUDONYM))
    files = [*tmp_path.iterdir()]
    assert sorted(ids_in(*files)) == sorted(f"d-{number}" for number in range(BATCHES * AT_ONCE))
    assert all(PSEUDONYM in line for file in files for line in file.read_text().splitlines())


def test_the_command_replaces_a_person_by_the_pseudonym_of_the_certificate(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    LinesFile(path, max_bytes=65_536, kept=1).write([entry(1)])
    done = run("privacy", "erase-log", "user:maya", PSEUDONYM, path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{path} and its rotated files: 1 lines have {PSEUDONYM} now\n"
    assert json.loads(path.read_text())["subject"] == PSEUDONYM


@pytest.mark.parametrize("wrong", ["user:omar", PSEUDONYM[:-1], f"{PSEUDONYM}0", PSEUDONYM.replace("0", "x")])
def test_the_command_refuses_what_no_certificate_has(tmp_path: Path, wrong: str) -> None:
    path = tmp_path / "decisions.jsonl"
    LinesFile(path, max_bytes=65_536, kept=1).write([entry(1)])
    before = path.read_bytes()
    refused = run("privacy", "erase-log", "user:maya", wrong, path)
    assert refused.returncode == 2
    assert f"PSEUDONYM is `{wrong}`; copy all of" in refused.stderr
    assert path.read_bytes() == before


def test_as_many_old_files_are_kept_as_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    sink = LinesFile(path, max_bytes=1, kept=2)
    for number in range(5):
        sink.write([entry(number)])
    older = [path, path.with_name("decisions.jsonl.1"), path.with_name("decisions.jsonl.2")]
    assert [ids_in(file) for file in older] == [["d-4"], ["d-3"], ["d-2"]]
    assert len(list(tmp_path.iterdir())) == 3


def test_a_file_that_another_program_has_moved_is_begun_again(tmp_path: Path) -> None:
    path, moved = tmp_path / "decisions.jsonl", tmp_path / "moved"
    sink = LinesFile(path, max_bytes=1 << 20, kept=1)
    sink.write([entry(1)])
    path.rename(moved)
    sink.write([entry(2)])
    assert (ids_in(moved), ids_in(path)) == (["d-1"], ["d-2"])


def test_a_line_says_when_in_words(tmp_path: Path) -> None:
    path = tmp_path / "decisions.jsonl"
    LinesFile(path, max_bytes=1 << 20, kept=1).write([entry(5)])
    assert json.loads(path.read_text())["at"] == "2023-11-14T22:13:20.000005Z"


def test_writers_that_share_a_pipe_which_is_read_slowly_tear_no_line() -> None:
    read_fd, write_fd = os.pipe()
    fcntl.fcntl(write_fd, fcntl.F_SETPIPE_SZ, 4096)
    os.set_blocking(write_fd, False)
    many = [[entry(first + number) for number in range(100)] for first in (0, 100, 200)]
    writers = [threading.Thread(target=StandardOutput(write_fd).write, args=(each,)) for each in many]
    for each in writers:
        each.start()
    with os.fdopen(read_fd) as reader:
        found = [json.loads(reader.readline())["decision_id"] for _ in range(300)]
    for each in writers:
        each.join()
    os.close(write_fd)
    assert sorted(found) == sorted(f"d-{number}" for number in range(300))


def test_entries_wait_while_the_disk_is_full_and_none_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decision_log, "_RETRY_S", 0.01)
    path = tmp_path / "decisions.jsonl"
    path.symlink_to("/dev/full")
    with capture_logs() as lines:
        log = DecisionLog([LinesFile(path, max_bytes=1 << 20, kept=1)], sample_rate=1)
        for number in range(3):
            log.put(partial(entry, number))
        while not lines:
            threading.Event().wait(0.001)
        path.unlink()
        log.close()
    assert ids_in(path) == ["d-0", "d-1", "d-2"]
    told = [(line["log_level"], line["event"], line["sink"]) for line in lines]
    assert told == [
        ("warning", "decisions are not written; they wait, and are lost when too many do", "file"),
        ("info", "decisions are written again", "file"),
    ]
    assert "No space left" in lines[0]["error"]


def test_a_batch_for_which_the_disk_has_no_room_leaves_no_part_of_itself(tmp_path: Path) -> None:
    sink = LinesFile(path := tmp_path / "decisions.jsonl", max_bytes=1 << 20, kept=1)
    sink.write([entry(0)])
    written = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * len(written), hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            sink.write([entry(number) for number in range(1, AT_ONCE)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == written
    sink.write([entry(number) for number in range(1, AT_ONCE)])
    assert ids_in(path) == [f"d-{number}" for number in range(AT_ONCE)]


class Slow:
    """A sink that writes nothing until it may."""

    name = "slow"
    gather_s = 0.0

    def __init__(self) -> None:
        self.may = threading.Event()
        self.entered = threading.Event()
        self.written: list[str] = []

    def write(self, entries: Sequence[DecisionEntry]) -> None:
        self.entered.set()
        self.may.wait()
        self.written += [each.decision_id for each in entries]


def counted(outcome: str) -> float:
    wanted = f'authz_decision_log_entries_total{{outcome="{outcome}",sink="slow"}}'
    lines = generate_latest(REGISTRY).decode().splitlines()
    return float(next(line for line in lines if line.startswith(wanted)).split()[-1])


def test_what_a_slow_sink_loses_is_counted_and_no_other_sink_loses_any(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decision_log, "MAX_WAITING", 10)
    monkeypatch.setattr(LinesFile, "gather_s", 0.0)
    path, slow = tmp_path / "decisions.jsonl", Slow()
    path.touch()
    with capture_logs() as lines:
        log = DecisionLog([slow, LinesFile(path, max_bytes=1 << 20, kept=1)], sample_rate=1)
        before = counted("written"), counted("lost")
        log.put(partial(entry, 0))
        slow.entered.wait()
        for number in range(1, 31):
            log.put(partial(entry, number))
            if number % 10 == 0:
                while path.read_bytes().count(b"\n") <= number:  # as fast as the file takes them
                    threading.Event().wait(0.001)
        slow.may.set()
        log.close()
    assert slow.written == [f"d-{number}" for number in range(11)]
    assert ids_in(path) == [f"d-{number}" for number in range(31)]
    assert (counted("written") - before[0], counted("lost") - before[1]) == (11, 20)
    assert [(line["event"], line["entries"]) for line in lines] == [("decisions lost", 20)]


class Picky:
    """A sink that can never write some entries."""

    name = "slow"
    gather_s = 0.01

    def __init__(self, refused: Collection[str], error: Exception) -> None:
        self._refused, self._error = refused, error
        self.written: list[str] = []

    def write(self, entries: Sequence[DecisionEntry]) -> None:
        ids = [each.decision_id for each in entries]
        if not set(self._refused).isdisjoint(ids):
            raise self._error
        self.written += ids


@pytest.mark.parametrize("error", [malformed("purpose", "is no text"), ValueError("no text")])
def test_only_the_entries_that_a_sink_can_never_write_are_lost_and_counted(error: Exception) -> None:
    picky = Picky(["d-3", "d-4", "d-19"], error)
    with capture_logs() as lines:
        log = DecisionLog([picky], sample_rate=1)
        before = counted("written"), counted("lost")
        for number in range(20):
            log.put(partial(entry, number))
        log.close()
    assert picky.written == [f"d-{number}" for number in range(20) if number not in (3, 4, 19)]
    assert (counted("written") - before[0], counted("lost") - before[1]) == (17, 3)
    named = [line["decision_id"] for line in lines if line["event"].startswith("decision not written")]
    assert named == ["d-3", "d-4", "d-19"]


def test_a_stop_does_not_wait_for_a_sink_that_hangs_and_counts_what_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("_FLUSH_TIMEOUT_S", "_ABORT_TIMEOUT_S"):
        monkeypatch.setattr(decision_log, name, 0.01)
    slow = Slow()
    with capture_logs() as lines:
        log = DecisionLog([slow], sample_rate=1)
        before = counted("lost")
        log.put(partial(entry, 0))
        slow.entered.wait()
        log.put(partial(entry, 1))
        log.put(partial(entry, 2))
        log.close()
        assert counted("lost") - before == 3
        slow.may.set()
    assert [(line["event"], line["entries"]) for line in lines] == [("decisions lost", 3)]


@pytest.mark.parametrize(
    ("sample_rate", "kept"), [(0.0, range(1)), (1.0, range(1000, 1001)), (0.3, range(200, 400))]
)
def test_a_sample_of_what_is_allowed_is_kept(sample_rate: float, kept: Collection[int]) -> None:
    log = DecisionLog([], sample_rate=sample_rate)
    assert sum(log.samples() for _ in range(1000)) in kept
