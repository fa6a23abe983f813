"""Who follows the change log waits for the commits of its own process, and for no other."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from authz.domain.entities import Course
from authz.domain.mutations import LocalCommit
from authz.domain.ports import CommitNotifier
from authz.store import Store
from tests.store.directory import create, open_with, write

SILENT_S = 0.3


class Replica:
    """Holds what was committed, a while after it was."""

    def __init__(self) -> None:
        self.revision = 0
        self.hangs, self.goes_on = threading.Event(), threading.Event()

    def apply(self, committed: LocalCommit) -> None:
        self.hangs.set()
        assert self.goes_on.wait(20)
        self.revision = committed.changes[-1].revision


@pytest.fixture
def replica(store: Store) -> Replica:
    made = Replica()
    store.directory.subscribe(made.apply)
    return made


@pytest.fixture
def notifier(store: Store) -> Iterator[CommitNotifier]:
    """One that listens."""
    made = store.directory.notifier()
    made.wait(0, lambda: 0)
    yield made
    made.close()


def test_a_commit_of_this_process_is_not_read_while_it_is_applied(
    store: Store, replica: Replica, notifier: CommitNotifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authz.store.database.local_commits._MAX_WAIT_S", 20.0)  # on a busy machine, too

    def wait() -> bool:
        """Whether the notifier reports anything."""
        begun = time.monotonic()
        notifier.wait(SILENT_S, lambda: replica.revision)
        return time.monotonic() - begun < SILENT_S

    with ThreadPoolExecutor(2) as pool:
        waits = pool.submit(wait)
        pool.submit(write, store, create(Course(id="c")))
        assert replica.hangs.wait(20)
        time.sleep(0.02)  # the notification is there, and what it is about is not
        replica.goes_on.set()
        assert not waits.result()
    assert replica.revision == 1


def test_another_commit_is_reported_although_one_of_this_process_hangs(
    store: Store, store_url: str, replica: Replica, notifier: CommitNotifier
) -> None:
    with ThreadPoolExecutor(2) as pool:
        pool.submit(write, store, create(Course(id="c")))
        assert replica.hangs.wait(20)
        other = open_with(store_url)
        write(other, create(Course(id="d")))
        other.close()
        begun = time.monotonic()
        notifier.wait(20, lambda: replica.revision)
        assert time.monotonic() - begun < 10
        replica.goes_on.set()
