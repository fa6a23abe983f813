"""Writers that are killed lose nothing that they acknowledged, and leave no half write."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from authz.domain.entities import Course
from tests.forkserver import Process
from tests.store.directory import changes_of, create, open_with, replay, stored, write


@contextmanager
def writing(url: str, group_size: int) -> Iterator[Process]:
    """A process that writes groups, killed at the end."""
    writer = Process(
        url, str(group_size), environ=os.environ, stderr=subprocess.PIPE, module="tests.store.writer"
    )
    try:
        yield writer
    finally:
        writer.kill()
        writer.wait()


def killed_after(writer: Process, acknowledged: int) -> list[int]:
    """The revisions that a writer acknowledged until it was killed, which are at least so many."""
    assert writer.stderr is not None
    revisions = [int(writer.stderr.readline()) for _ in range(acknowledged)]
    writer.kill()
    return revisions + [int(line) for line in writer.stderr if line.endswith("\n")]


def check(url: str, acknowledged: list[int]) -> None:
    """The log is gapless, whole, what the tables say, and has all that was acknowledged."""
    store = open_with(url)
    log = changes_of(store, 0, 100_000)
    while more := changes_of(store, len(log), 100_000):  # a read has a bounded number of changes
        log += more
    assert [change.revision for change in log] == list(range(1, len(log) + 1))
    assert set(acknowledged) <= {change.revision for change in log}
    assert len(acknowledged) == len(set(acknowledged))
    assert all(len(change.mutations) == 2 for change in log)
    assert replay(log) == stored(store)
    store.close()


@pytest.mark.parametrize("group_size", [1, 5])
@pytest.mark.parametrize("acknowledged", [1, 7, 30])
def test_a_killed_writer_leaves_whole_writes(store_url: str, acknowledged: int, group_size: int) -> None:
    open_with(store_url).close()
    with writing(store_url, group_size) as writer:
        revisions = killed_after(writer, acknowledged)
    assert len(revisions) >= acknowledged
    check(store_url, revisions)


def test_processes_that_write_at_once_stay_gapless_when_they_are_killed(store_url: str) -> None:
    open_with(store_url).close()
    with ExitStack() as running:
        writers = [running.enter_context(writing(store_url, 3)) for _ in range(3)]
        revisions = [revision for writer in writers for revision in killed_after(writer, 12)]
    check(store_url, revisions)


def test_a_process_that_writes_seldom_waits_for_few_commits_of_those_that_never_pause(store_url: str) -> None:
    """SQLite alone gives its lock in no order: hundreds of commits, and in the end a timeout."""
    store = open_with(store_url)
    with ExitStack() as stack:
        for writer in [stack.enter_context(writing(store_url, 1)) for _ in range(2)]:
            assert writer.stderr is not None
            writer.stderr.readline()  # it has begun
        for number in range(10):
            before = store.directory.head().revision
            assert write(store, create(Course(id=f"seldom-{number}"))) - before <= 30
    store.close()
