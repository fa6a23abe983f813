"""Keeps the replica at the head of the change log: one follower for each folder, however many servers.

It builds a replica from a dump when there is none that can be trusted, and otherwise goes on from the
revision that the replica holds. What it cannot follow without doubt (another database, another history,
a gap, a damaged file) it builds anew beside, and swaps in whole.
"""

from __future__ import annotations

import fcntl
import shutil
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import lmdb
import structlog

from authz.domain.errors import AuthzError
from authz.domain.mutations import LocalCommit
from authz.domain.ports import DATABASE_ANSWER_TIMEOUT_S, CommitNotifier, Directory
from authz.replica.build import build_replica
from authz.replica.environment import (
    Environment,
    UnusableError,
    acquire_environment,
    release_environment,
)
from authz.replica.shared_state import REVISION, SharedState, uptime_ns
from authz.replica.warmup import warm_up
from authz.replica.writer import GapError, apply_changes, require_same_history

log = structlog.get_logger()

_HEARTBEAT_S = 0.5
"""How often the head is asked for when nobody says that it has moved."""
_RETRY_S = 0.25
_LOCK_POLL_S = 0.05
_REVISIONS_AT_ONCE = 256
_READER_CHECK_S = 60.0
_GUARD_S = 1.0
_LOCK_FILE = "lock"
_FILES = {"data.mdb", "lock.mdb"}
"""What a generation is made of."""
_DAMAGE = (
    UnusableError,
    GapError,
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.InvalidError,
    lmdb.BadValsizeError,
    lmdb.BadTxnError,
    struct.error,
    IndexError,
    UnicodeDecodeError,
)
"""What says that the file is not what it should be: it is built anew, beside."""


class Follower:
    """Follows `directory` into the replica in `folder`. `run` blocks in a thread or process of its own.

    `source` names the database, so that a restart with another one is noticed before it answers.
    `prepare` makes the database fit to be followed; it is called again for as long as it raises.
    """

    def __init__(
        self,
        directory: Directory,
        folder: Path,
        *,
        source: str,
        max_bytes: int,
        prepare: Callable[[], None] | None = None,
    ) -> None:
        self._directory = directory
        self._folder = folder
        self._source = source
        self._max_bytes = max_bytes
        self._prepare = prepare
        self._state = SharedState(folder)
        self._notifier: CommitNotifier = directory.notifier()
        self._stopped = threading.Event()
        # Held by whoever works on the replica, be it only for what was committed just now.
        self._mutex = threading.Lock()
        self._environment: Environment | None = None
        self._away = False
        self._damaged = False
        self._checked_readers_at = 0.0
        self._asked_at: float | None = None
        """Since when the database owes an answer."""
        self.initialized = threading.Event()
        """Set once it has either confirmed the replica or found the database away."""

    def run(self) -> None:
        """Follow until `stop`. Waits while another follower holds the folder; begins again in a new one
        when it is deleted. Whatever fails is logged and tried again: nobody else would follow."""
        threading.Thread(target=self._guard, name="follower-guard", daemon=True).start()
        try:
            while not self._stopped.is_set():
                try:
                    with self._exclusive() as held:
                        if held:
                            log.info("following", folder=str(self._folder))
                            self._state.begin(self._source)
                            self._repeat()
                    if not self._stopped.is_set():
                        self._begin_again()
                except Exception:
                    log.exception("follower failed", folder=str(self._folder))
                    self._pause()
        finally:
            self._stopped.set()
            with self._mutex:
                self._release()
            self._notifier.close()
            self._state.close()
            self.initialized.set()

    def stop(self) -> None:
        """Let `run` return soon; to be called from any thread."""
        self._stopped.set()
        self._notifier.wake()

    def _guard(self) -> None:
        """Hang up on a database that gives no answer."""
        while not self._stopped.wait(_GUARD_S):
            asked_at = self._asked_at
            if asked_at is not None and time.monotonic() - asked_at > DATABASE_ANSWER_TIMEOUT_S:
                self._asked_at = None
                self._directory.abort_connections()

    def apply_local_commit(self, committed: LocalCommit) -> None:
        """Apply what was committed just now by this process, if it follows on what the replica holds;
        else it comes by way of the log. To be called from any thread; never raises."""
        if not self._apply_local_commit(committed):
            self.wake()

    def _apply_local_commit(self, committed: LocalCommit) -> bool:
        if not self._mutex.acquire(blocking=False):
            return False
        try:
            environment = self._environment
            if environment is None:
                return False
            environment.require_there()
            if environment.state() != committed.after:
                return False
            self._state.advance(apply_changes(environment, committed.changes))
        except Exception as error:  # noqa: BLE001  it is committed all the same; `run` meets the fault, too
            log.warning("commit not taken at once", cause=str(error))
            return False
        finally:
            self._mutex.release()
        return True

    def wake(self) -> None:
        """Say that something has been committed; to be called from any thread."""
        if not self._stopped.is_set():
            self._notifier.wake()

    @contextmanager
    def _exclusive(self) -> Iterator[bool]:
        """Hold the folder's lock, which ends with the process, however that ends."""
        self._folder.mkdir(parents=True, exist_ok=True)
        told = False
        with (self._folder / _LOCK_FILE).open("a") as file:
            while not self._stopped.is_set():
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    # Whoever holds it confirms, or does not, for us too; or keeps us out.
                    self.initialized.set()
                    if not told and not self._state.is_of(self._source):
                        log.warning("replica folder is kept for another database", folder=str(self._folder))
                        told = True
                    self._stopped.wait(_LOCK_POLL_S)
                else:
                    yield True
                    return
            yield False

    def _begin_again(self) -> None:
        """Leave a folder that was deleted. Whoever still has its page open learns from it to look anew."""
        log.warning("replica deleted; building it anew", folder=str(self._folder))
        self._state.withdraw()
        with self._mutex:
            self._release()
        state, self._state = self._state, SharedState(self._folder)
        state.close()

    def _repeat(self) -> None:
        while not (self._stopped.is_set() or self._state.is_gone()):
            try:
                if self._prepare is not None:
                    self._prepare()
                    self._prepare = None
                self._catch_up()
                self._report_away(None)
                self._damaged = False
                self.initialized.set()
                self._notifier.wait(_HEARTBEAT_S, self._held)
            except AuthzError as error:
                self._report_away(error)
                self._pause()
            except lmdb.MapFullError:
                log.exception("replica full; raise AUTHZ_REPLICA_MAX_BYTES", max_bytes=self._max_bytes)
                self._pause()
            except lmdb.MapResizedError as error:
                self._open_anew(error)
            except _DAMAGE as error:
                self._discard(error)
            except Exception:
                # A follower that ended here would leave the replica to go stale for good.
                log.exception("follower failed")
                self._pause()

    def _open_anew(self, error: Exception) -> None:
        """Leave a file that says it is larger than what is mapped here."""
        environment = self._environment
        if environment is None or not environment.is_outgrown():
            self._discard(error)
            return
        # Another server followed, and is allowed more: opened anew, so is this one.
        with self._mutex:
            self._release()
        self._pause()

    def _discard(self, error: Exception) -> None:
        """Leave a replica that cannot be trusted: from here on nobody is answered from it."""
        log.warning("replica not usable", cause=str(error))
        self._state.withdraw()
        with self._mutex:
            self._release()
        if self._damaged:
            self._pause()  # it was built anew just now: that alone does not help
        self._damaged = True

    def _pause(self) -> None:
        self.initialized.set()
        self._stopped.wait(_RETRY_S)

    def _report_away(self, error: AuthzError | None) -> None:
        """Log when the database goes, and when it comes back."""
        if error is not None and not self._away:
            log.warning("database away", error=error.message, notes=getattr(error, "__notes__", []))
        elif error is None and self._away:
            log.warning("database back")
        self._away = error is not None

    def _catch_up(self) -> None:
        """Bring the replica to the head as it is now, and confirm it as of before it was asked for.

        What follows is read together with the proof that it follows on what the replica holds. The database
        is asked without the mutex: one that does not answer is not to hold up what is committed here.
        """
        with self._mutex:
            environment = self._usable()
        environment.require_there()
        at_head = False
        while not (at_head or self._stopped.is_set()):
            asked_at_ns = uptime_ns()
            held = environment.state()
            self._asked_at = time.monotonic()
            try:
                tail = self._directory.follow(held.revision, _REVISIONS_AT_ONCE)
            finally:
                self._asked_at = None
            require_same_history(held, tail)
            with self._mutex:
                reached = environment.state().revision
                # Else what was committed here meanwhile came first, which follows on what was held.
                if reached == held.revision and tail.changes:
                    reached = apply_changes(environment, tail.changes)
                    self._state.advance(reached)
            at_head = reached >= tail.head.revision
            if at_head:
                self._state.confirm(asked_at_ns)
        self._check_readers(environment)

    def _usable(self) -> Environment:
        """The replica that is there if it may be trusted, else one built anew."""
        if self._environment is not None:
            self._require_as_told(self._environment)
        if self._environment is None:
            generation = self._state.generation
            if generation and (self._folder / str(generation)).is_dir():
                with suppress(UnusableError):
                    self._environment = self._open(generation)
                    self._warm_up(self._environment)
                    # A follower that was killed may have left this undone.
                    self._state.advance(self._environment.state().revision)
        if self._environment is None:
            self._rebuild()
        assert self._environment is not None  # noqa: S101  `_rebuild` raises otherwise
        return self._environment

    def _require_as_told(self, environment: Environment) -> None:
        """Raise `UnusableError` when page and file say different things: one of them was written over."""
        state = self._state
        if not state.is_of(self._source) or str(state.generation) != environment.folder.name:
            raise UnusableError("what the processes of this machine are told of it is damaged")
        held = environment.state().revision
        if held < self._held():
            raise UnusableError(f"it holds revision {held}, and revision {self._held()} was put there")
        if held > self._held():
            state.advance(held)

    def _open(self, generation: int) -> Environment:
        folder = self._folder / str(generation)
        environment = acquire_environment(folder, max_bytes=self._max_bytes)
        try:
            environment.require_usable()
        except BaseException:
            release_environment(environment)
            raise
        return environment

    def _warm_up(self, environment: Environment) -> None:
        """In a thread, so that checks are answered from the disk meanwhile."""
        threading.Thread(
            target=warm_up,
            args=(environment.data_file,),
            kwargs={"stopped": self._stopped.is_set},
            name="warm-up",
            daemon=True,
        ).start()

    def _rebuild(self) -> None:
        self._state.withdraw()
        self._state.begin(self._source)
        self._sweep()
        generation = time.time_ns()
        started_s = time.monotonic()
        folder = self._folder / str(generation)
        with self._directory.dump() as dump:
            build_replica(folder, dump, max_bytes=self._max_bytes, stopped=self._stopped.is_set)
        self._environment = self._open(generation)
        revision = self._environment.state().revision
        self._state.publish(generation, revision)
        log.info(
            "replica built",
            revision=revision,
            size_bytes=self._environment.size_bytes(),
            elapsed_s=round(time.monotonic() - started_s, 3),
        )

    def _sweep(self) -> None:
        """Delete the generations of before, and nothing else that somebody keeps here.

        Whoever still reads one keeps what it has open.
        """
        for path in self._folder.iterdir():
            if path.is_dir() and path.name.isdigit() and {each.name for each in path.iterdir()} <= _FILES:
                shutil.rmtree(path, ignore_errors=True)

    def _held(self) -> int:
        return self._state.words[REVISION]

    def _release(self) -> None:
        if self._environment is not None:
            release_environment(self._environment)
            self._environment = None

    def _check_readers(self, environment: Environment) -> None:
        """Free what a reader that was killed still holds on to: its pages would never be used again."""
        if time.monotonic() - self._checked_readers_at > _READER_CHECK_S:
            environment.lmdb.reader_check()
            self._checked_readers_at = time.monotonic()
