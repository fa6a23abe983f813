"""Keeps the replica at the head of the change log: one follower for each folder, however many servers.

The follower builds a replica from a dump when there is none that it can trust, and otherwise continues from
the revision that the replica holds. It never repairs: after anything that may not follow on what the replica
holds (another database, another history, a gap, a damaged file) it withdraws the replica and builds another.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import lmdb
import structlog

from authz.domain.errors import AuthzError
from authz.domain.instants import US_PER_S
from authz.domain.mutations import Change, LocalCommit
from authz.domain.ports import ChangeSource, CommitNotifier
from authz.replica.environment import (
    DAMAGE,
    Environment,
    UnusableError,
    held_environment,
    not_ready,
    release_environment,
    room_for,
)
from authz.replica.folder import elected
from authz.replica.generations import (
    build_generation,
    copy_generation,
    delete_generations,
    open_generation,
    warm_up,
)
from authz.replica.shared_state import REQUIRED, REVISION, SharedState, uptime_ns
from authz.replica.writer import apply_changes, require_same_history
from authz.telemetry.metrics import REPLICATION_LAG

log = structlog.get_logger()

_HEARTBEAT_S = 0.5
"""How often the follower reads the head when no notification comes."""
_RETRY_S = 0.25
_STEP_S = 120.0
"""How long one step may take: the database's watchdog ends a call after 20 s, and a large revision takes long
to read and to apply."""
_BUILD_STEP_S = 900.0
"""Of a build: a statement that sorts a whole table is silent for up to ten minutes."""
_REVISIONS_PER_READ = 256
_READER_CHECK_INTERVAL_S = 60.0


class Follower:
    """Follows `directory` into the replica in `folder`. `run` blocks in a thread or process of its own.

    `source` names the database, so that a restart with another database is noticed before it answers.
    `prepare` makes the database fit to be followed; the follower calls it again for as long as it raises.
    """

    def __init__(
        self,
        directory: ChangeSource,
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
        # Held by the thread that writes to the replica: `run`, or one that applies a local commit.
        self._mutex = threading.Lock()
        self._environment: Environment | None = None
        self._fault: tuple[str, ...] = ()
        self._just_rebuilt = False
        self._waiting_for = ""
        self._checked_readers_at_s = 0.0
        self._due_at_s = float("inf")
        self.initialized = threading.Event()
        """Set once the follower has either confirmed the replica or found that it cannot do so now."""

    def run(self) -> None:
        """Follow until `stop`. Waits while another follower holds the folder, and starts over in a new folder
        when this one is deleted. Logs and retries after any failure: no other process would follow."""
        try:
            while not self._stopped.is_set():
                try:
                    with elected(self._folder, stopped=self._stopped, waiting=self._report_waiting) as leads:
                        if leads:
                            log.info("following", folder=str(self._folder))
                            self._state.begin(self._source)
                            self._follow()
                    if not self._stopped.is_set():
                        self._leave_deleted_folder()
                except Exception as error:
                    if self._is_new_failure(error):
                        log.exception("follower failed", folder=str(self._folder))
                    self._pause()
        finally:
            self._stopped.set()
            self._expect(float("inf"))
            self._close_environment()
            self._notifier.close()
            self._state.close()
            self.initialized.set()

    def is_overdue(self) -> bool:
        """Whether `run` has made no progress for longer than its present step may take. For any thread.

        A migration may take as long as it needs."""
        return time.monotonic() > self._due_at_s

    def stop(self) -> None:
        """Make `run` return soon; to be called from any thread."""
        self._stopped.set()
        self._notifier.wake()

    def apply_local_commit(self, committed: LocalCommit) -> None:
        """Apply what this process just committed, if it follows on what the replica holds; otherwise `run`
        reads it from the change log. To be called from any thread; never raises."""
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
            self._apply(environment, committed.changes)
        except Exception as error:  # noqa: BLE001  the write is committed all the same, and `run` meets the fault too
            log.warning("local commit not applied", cause=str(error))
            return False
        finally:
            self._mutex.release()
        return True

    def wake(self) -> None:
        """Make `run` read the change log now; to be called from any thread."""
        if not self._stopped.is_set():
            self._notifier.wake()

    def _expect(self, within_s: float) -> None:
        """Say that the next step is done within this time."""
        self._due_at_s = time.monotonic() + within_s

    def _report_waiting(self) -> None:
        self._expect(_STEP_S)
        # The follower that holds the folder confirms the replica for this process too, or keeps it out.
        self.initialized.set()
        is_same_source = self._state.is_of(self._source)
        reason = "another process follows" if is_same_source else "the folder is kept for another database"
        if reason != self._waiting_for:
            self._waiting_for = reason
            (log.info if is_same_source else log.warning)(
                "waiting to follow", folder=str(self._folder), cause=reason
            )

    def _leave_deleted_folder(self) -> None:
        """Tell the processes that still map the deleted page that it is void, and map the new one."""
        log.warning("replica folder deleted; building a new replica", folder=str(self._folder))
        self._state.withdraw()
        self._close_environment()
        deleted, self._state = self._state, SharedState(self._folder)
        deleted.close()

    def _follow(self) -> None:
        """Catch up and wait for the next commit, until `stop` or until the folder is deleted."""
        while not (self._stopped.is_set() or self._state.is_gone()):
            try:
                if self._prepare is not None:
                    self._expect(float("inf"))
                    self._prepare()
                    self._prepare = None
                self._catch_up()
                self._report_recovered()
                self._just_rebuilt = False
                self.initialized.set()
                self._notifier.wait(_HEARTBEAT_S, self._published_revision)
            except AuthzError as error:
                if self._stopped.is_set():
                    return  # a stop aborts the connections
                if self._is_new("database away", error.message):
                    log.warning("database away", error=error.message, notes=error.notes)
                self._pause()
            except lmdb.MapResizedError as error:
                self._reopen_outgrown(error)
            except DAMAGE as error:
                self._withdraw(error)
            except Exception as error:
                # A follower that ended here would leave the replica stale forever.
                if self._is_new_failure(error):
                    log.exception("follower failed", folder=str(self._folder))
                self._pause()

    def _reopen_outgrown(self, error: Exception) -> None:
        """Close a file that is larger than its map here, so that it is opened again with a larger map, once
        no snapshot in this process holds it open."""
        held = held_environment(self._folder / str(self._state.generation))
        if held is not None and not held.is_outgrown():
            self._withdraw(error)
            return
        # A server with a larger AUTHZ_REPLICA_MAX_BYTES followed before.
        self._close_environment()
        self._pause()

    def _withdraw(self, error: Exception) -> None:
        """Stop serving a replica that cannot be trusted."""
        if self._is_new("replica not usable", type(error).__name__):
            log.warning("replica not usable", cause=str(error))
        self._state.withdraw()
        self._close_environment()
        if self._just_rebuilt:
            self._pause()  # another rebuild at once would not help
        self._just_rebuilt = True

    def _pause(self) -> None:
        self._expect(_STEP_S)
        self.initialized.set()
        self._stopped.wait(_RETRY_S)

    def _is_new(self, *fault: str) -> bool:
        """Whether a fault differs from the last: one that lasts is logged once."""
        last, self._fault = self._fault, fault
        return fault != last

    def _is_new_failure(self, error: Exception) -> bool:
        """Whether to log an error with its stack trace. Reports a full replica or disk by name instead."""
        remedy = room_for(error)
        if remedy and self._is_new("replica full", type(error).__name__):
            log.error("replica full", folder=str(self._folder), cause=str(error), remedy=remedy)
        return not remedy and self._is_new("follower failed", type(error).__name__)

    def _report_recovered(self) -> None:
        if self._fault:
            log.warning("follower recovered", after=self._fault[0])
        self._fault = ()

    def _catch_up(self) -> None:
        """Bring the replica to the head, and confirm it as of the time before the head was read.

        One transaction reads the changes and the state that they follow on, which must be what the replica
        holds. The mutex is not held during that read: a database that does not answer must not delay local
        commits.
        """
        with self._mutex:
            environment = self._open_or_build()
        environment.require_there()
        at_head = False
        while not (at_head or self._stopped.is_set()):
            self._expect(_STEP_S)
            read_at_ns, required = uptime_ns(), self._state.words[REQUIRED]
            held = environment.state()
            tail = self._directory.follow(held.revision, _REVISIONS_PER_READ)
            require_same_history(held, tail)
            self._expect(_STEP_S)
            with self._mutex:
                reached = environment.state().revision
                # Otherwise a local commit came first, which follows on what was held.
                if reached == held.revision and tail.changes:
                    reached = self._apply(environment, tail.changes)
            at_head = reached >= tail.head.revision
            if at_head and tail.head.revision < required:
                # That revision was committed before the head was read: the database has lost it.
                self._state.release(required)
            if at_head:
                self._state.confirm(read_at_ns)
        self._check_readers(environment)
        if environment.has_erased():
            self._rewrite_without_erased(environment)

    def _rewrite_without_erased(self, environment: Environment) -> None:
        """Continue in a copy that has nothing left of subjects that were erased. The old file is served until
        the copy holds as much."""
        self._expect(_BUILD_STEP_S)
        other = rewritten = copy_generation(self._folder, environment, max_bytes=self._max_bytes)
        copied = rewritten.state().revision
        try:
            self._apply_missing(rewritten, environment)
            with self._mutex:
                self._apply_missing(rewritten, environment)
                self._state.publish(int(rewritten.folder.name), rewritten.state().revision)
                self._environment, other = rewritten, environment
        finally:
            release_environment(other)
        delete_generations(self._folder, keep=rewritten.folder.name)
        rewritten.set_cleared(copied)  # not before, so that a follower that is killed leaves no old file
        log.info("replica rewritten without what was erased")

    def _apply_missing(self, copy: Environment, environment: Environment) -> None:
        """Apply to a copy what was applied to the original since.

        Raises `UnusableError` if the database has lost it, and `UnavailableError` soon after `stop`.
        """
        while (held := copy.state()).revision < environment.state().revision:
            if self._stopped.is_set():
                raise not_ready("the server was stopped while it rewrote its replica")
            tail = self._directory.follow(held.revision, _REVISIONS_PER_READ)
            require_same_history(held, tail)
            if not tail.changes:
                raise UnusableError(f"the database has lost what follows on revision {held.revision}")
            apply_changes(copy, tail.changes)

    def _apply(self, environment: Environment, changes: Sequence[Change]) -> int:
        """Apply changes, and let every process of the machine know. Returns the last revision."""
        reached = apply_changes(environment, changes)
        self._state.advance(reached)
        now_s = time.time()
        for change in changes:
            REPLICATION_LAG.observe(max(now_s - change.committed_at / US_PER_S, 0.0))  # clocks may differ
        return reached

    def _open_or_build(self) -> Environment:
        """The published replica if it can be trusted, otherwise a new one."""
        if self._environment is None:
            self._open_published()
        else:
            self._require_as_published(self._environment)
        if self._environment is None:
            return self._build()
        return self._environment

    def _require_as_published(self, environment: Environment) -> None:
        """Raise `UnusableError` when the shared page and the file differ: one of them was overwritten."""
        state, published = self._state, self._published_revision()
        if not state.is_of(self._source) or str(state.generation) != environment.folder.name:
            raise UnusableError("the shared state of its folder is damaged")
        held = environment.state().revision
        if held < published:
            raise UnusableError(f"it holds revision {held}, and revision {published} was applied to it")
        if held > published:
            state.advance(held)

    def _open_published(self) -> None:
        generation = self._state.generation
        if not generation or not (self._folder / str(generation)).is_dir():
            return
        with suppress(UnusableError):
            self._environment = open_generation(self._folder, generation, max_bytes=self._max_bytes)
            # In a thread, so that checks are answered from the disk meanwhile.
            threading.Thread(
                target=warm_up, args=(self._environment.data_file, self._stopped.is_set), daemon=True
            ).start()
            # A follower that was killed may not have come to this.
            self._state.advance(self._environment.state().revision)

    def _build(self) -> Environment:
        self._expect(_BUILD_STEP_S)
        self._state.withdraw()
        self._state.begin(self._source)
        started_s = time.monotonic()
        generation = build_generation(
            self._folder, self._directory, max_bytes=self._max_bytes, stopped=self._is_stopped_building
        )
        environment = open_generation(self._folder, generation, max_bytes=self._max_bytes)
        self._environment = environment
        revision = environment.state().revision
        self._state.publish(generation, revision)
        log.info(
            "replica built",
            revision=revision,
            size_bytes=environment.size_bytes(),
            elapsed_s=round(time.monotonic() - started_s, 3),
        )
        return environment

    def _is_stopped_building(self) -> bool:
        self._expect(_BUILD_STEP_S)
        return self._stopped.is_set()

    def _published_revision(self) -> int:
        return self._state.words[REVISION]

    def _close_environment(self) -> None:
        with self._mutex:
            if self._environment is not None:
                release_environment(self._environment)
                self._environment = None

    def _check_readers(self, environment: Environment) -> None:
        """Free the snapshots of readers that were killed: LMDB could not reuse their pages."""
        if time.monotonic() - self._checked_readers_at_s > _READER_CHECK_INTERVAL_S:
            environment.lmdb.reader_check()
            self._checked_readers_at_s = time.monotonic()
