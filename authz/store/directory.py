"""The source of truth: writes, imports, listings and the change log over one database."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager

import structlog
from sqlalchemy import Connection, Engine

from authz.domain.entities import CourseKey, EntityT_co, Filter, Key, PolicyVersion, SessionKey
from authz.domain.errors import AuthzError, ErrorReason, UnavailableError
from authz.domain.ids import ResourceRef, Scope, Subject
from authz.domain.instants import Instant
from authz.domain.mutations import (
    ChangeScope,
    ImportBatchResult,
    LocalCommit,
    LogChunk,
    LogTail,
    Mutation,
    WriteRequest,
)
from authz.domain.origin import Origin
from authz.domain.ports import ChangeSource, CommitNotifier, Listing, Page, Vocabularies
from authz.domain.tokens import ConsistencyToken, TokenKeys
from authz.store.active_policy import read_course_policies
from authz.store.database.connections import OpenConnections
from authz.store.database.engine import bounded_read_transaction, read_transaction, write_transaction
from authz.store.database.local_commits import LocalCommits
from authz.store.database.notifier import open_notifier
from authz.store.database.standby import require_standby
from authz.store.dump import SqlDump, open_dump
from authz.store.idempotency import IdempotencyKeys
from authz.store.log import reader
from authz.store.log.past import PastRecords, read_past
from authz.store.pagination import list_entities
from authz.store.privacy.erased import require_not_erased_since
from authz.store.removals import RemovalProgress, removal_progress
from authz.store.sharing import Member
from authz.store.write import Transaction

log = structlog.get_logger()

_REFUSED_WRITE = frozenset({ErrorReason.STORE_FULL, ErrorReason.STORE_READ_ONLY})
_REFUSAL_COUNTS_FOR_S = 10.0
"""After that only another write can tell whether the cause is gone, and clients send none to a server that
reports NOT_SERVING."""


class SqlDirectory(ChangeSource):
    """The directory in SQLite or PostgreSQL. Every call blocks and is safe to make from many threads.

    A call to a database that gives no answer raises `UnavailableError` after a timeout.
    """

    def __init__(
        self,
        engine: Engine,
        connections: OpenConnections,
        vocabularies: Vocabularies,
        clock: Callable[[], Instant],
        keys: TokenKeys,
        *,
        contents_at_once: int,
    ) -> None:
        self._keys = keys
        self._engine = engine
        self._connections = connections
        self._vocabularies = vocabularies
        self._clock = clock
        self.contents_at_once = contents_at_once
        """How many records a transaction deletes besides those that its mutations name."""
        self._listener: Callable[[LocalCommit], None] = lambda _: None
        self._local_commits = LocalCommits()
        self._refusal: UnavailableError | None = None
        self._refused_at_s = 0.0

    def subscribe(self, listener: Callable[[LocalCommit], None]) -> None:
        """Call `listener` with whatever is committed through here from now on, before its caller is
        answered, in the thread of the caller."""
        self._listener = listener

    def write(self, request: WriteRequest) -> ConsistencyToken:
        """Apply all mutations in one transaction, or none; return the state after them.

        The same transaction takes the next revision and appends the effects to the change log. A write that
        changes nothing takes no revision and returns the head.

        Deleting a course, session or resource deletes, and logs, everything in it: a bounded number of
        records at once, the rest by `remove_contents`. Until then, only `dump` shows the rest, and its keys
        are refused. Raises AlreadyExistsError, FailedPreconditionError, InvalidArgumentError, ConflictError,
        RemovalPendingError; then nothing has changed. After UnavailableError the outcome is unknown: the
        commit may have succeeded although its answer was lost.
        """
        (outcome,) = self.write_group([request])
        if isinstance(outcome, AuthzError):
            raise outcome
        return outcome

    def recall(self, request: WriteRequest) -> ConsistencyToken | None:
        """The state after an earlier write by the same actor with the same idempotency key; None if there was
        none. Raises `FailedPreconditionError` (IDEMPOTENCY_KEY_REUSED) if that write had another body."""
        with read_transaction(self._engine) as connection:
            head = reader.read_head(connection)
            keys = {(request.origin.actor, request.idempotency_key)} if request.idempotency_key else set()
            revision = IdempotencyKeys(connection, keys, now=head.committed_at).recall(request)
            if revision is None:
                return None
            self.add_token_key(connection, head.database_id)
            # A state whose revision was compacted is in the head.
            return reader.read_state(connection, head.database_id, revision) or head

    def write_group(self, requests: Sequence[WriteRequest]) -> list[ConsistencyToken | AuthzError]:
        """Apply several writes, each as `write` does, in one transaction and in order.

        Each write takes its own revision, sees the effects of those before it, and is atomic by itself. The
        result has, in the order of the requests, the state of each write, or its error if nothing of it was
        written. If two writes have the same idempotency key, the second gets the answer of the first. If the
        shared transaction fails, raises as `write` does, and the error applies to every write.
        """
        with self.transaction() as transaction:
            return transaction.write(requests)

    def import_batch(
        self,
        mutations: Sequence[Mutation | AuthzError],
        *,
        offset: int,
        origin: Origin,
        gives_roles_back: bool = True,
    ) -> ImportBatchResult:
        """Apply the valid mutations of a batch, in one transaction. `gives_roles_back` is that of
        `WriteRequest`.

        An invalid mutation, or the error in the place of one, is skipped and reported with its position,
        counted from `offset`.
        """
        with self.transaction() as transaction:
            return transaction.import_batch(
                mutations, offset=offset, origin=origin, gives_roles_back=gives_roles_back
            )

    def removal_progress(self) -> RemovalProgress | None:
        """How far the oldest removal has come; None if nothing is left to remove. Takes no lock."""
        with read_transaction(self._engine) as connection:
            return removal_progress(connection)

    def remove_member(self, subject: Subject, scope: Scope, origin: Origin) -> tuple[ConsistencyToken, bool]:
        """Delete, and log, a bounded part of a subject's memberships and then of the shares with it, in a
        course with its sessions, or in a session. Return the state after it, and whether that is all."""
        with self.transaction() as transaction:
            return transaction.remove_member(Member(subject, scope), origin)

    def remove_contents(self) -> ConsistencyToken:
        """Delete, and log, a bounded part of what deletions have left, in one transaction; return the state
        after it."""
        with self.transaction() as transaction:
            return transaction.remove_contents()

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """A transaction that writes, committed when the block ends. Then calls the subscriber."""
        with ExitStack() as committing:
            with self._remembering_refusal(), write_transaction(self._engine) as connection:
                transaction = Transaction(
                    connection, self._vocabularies, self._clock, contents_at_once=self.contents_at_once
                )
                self.add_token_key(connection, transaction.head.database_id)
                yield transaction
                committing.enter_context(self._local_commits.one())
            committed = transaction.log.committed()
            if committed.changes:
                try:
                    self._listener(committed)
                except Exception:
                    # The write is made, and its caller must not hear that it was not: it would be made again.
                    revision = committed.after.revision + len(committed.changes)
                    log.exception("listener failed", revision=revision)

    @contextmanager
    def _remembering_refusal(self) -> Iterator[None]:
        try:
            yield
        except UnavailableError as error:
            if error.reason in _REFUSED_WRITE:
                if self._refusal is None:
                    log.warning("database refuses writes", error=error.message, notes=error.notes)
                # A copy, since an import adds to its error what it wrote.
                self._refusal = UnavailableError(error.reason, error.message)
                self._refused_at_s = time.monotonic()
            raise
        self._refusal = None

    def read(self, wanted: Filter[EntityT_co], page: Page) -> Listing[EntityT_co]:
        """A page of the entities of one kind that match a filter, ordered by key."""
        with bounded_read_transaction(self._engine) as connection:
            read_at = reader.read_head(connection)
            self.add_token_key(connection, read_at.database_id)
            return list_entities(connection, wanted, page, read_at, self._keys)

    def course_policies(
        self, *, since: int, after: str, limit: int
    ) -> tuple[tuple[PolicyVersion, ...], ConsistencyToken]:
        """Up to `limit` of the versions that are active in courses and were activated after the revision
        `since`: those of the courses whose ids follow `after`, ordered by id. And the state that was read."""
        with read_transaction(self._engine) as connection:
            read_at = reader.read_head(connection)
            return read_course_policies(connection, since=since, after=after, limit=limit), read_at

    def records_at(
        self,
        time: Instant,
        record: CourseKey | SessionKey | ResourceRef,
        wanted: Callable[[Key], bool],
        *,
        likely: ChangeScope,
        subject: Subject | None,
    ) -> PastRecords:
        """What there was, at a time, on the platform and in the course in which a record then was: the
        records whose keys are `wanted`, from the change log. `record` itself must be wanted.

        Reads the whole log of that course. `likely` is where the record may have been, such as where it is
        now; if it was not, the log of all is searched for it. Raises `OutOfRangeError` if the log does not
        reach back to its beginning, `FailedPreconditionError` (SUBJECT_ERASED) if `subject`, whom the
        question is about, was erased since, and as `read` for one that takes too long.
        """
        with bounded_read_transaction(self._engine) as connection:
            if subject is not None:
                require_not_erased_since(connection, [str(subject)], time)
            past = read_past(connection, time, record, wanted, likely)
            self.add_token_key(connection, past.state.database_id)
            return past

    def follow(self, after: int, limit: int) -> LogTail:
        return reader.read_tail(self._engine, after, limit)

    def read_log(self, after: ConsistencyToken, skip: int, limit: int) -> LogChunk:
        """Up to `limit` mutations of the revisions after `after`, in order, without the first `skip`.

        To read a revision of any size in chunks, pass as `skip` the number of its mutations that you have
        read. Raises `OutOfRangeError` (TOKEN_EXPIRED) if the next mutations are no longer in the log, or if
        `after` is beyond the head or of another history.
        """
        return reader.read_chunk(self._engine, after, skip, limit)

    def head(self) -> ConsistencyToken:
        """The last committed state."""
        with read_transaction(self._engine) as connection:
            head = reader.read_head(connection)
            self.add_token_key(connection, head.database_id)
            return head

    def add_token_key(self, connection: Connection, database_id: str) -> None:
        """Add the key for the tokens of a database, given one of its states."""
        reader.add_token_key(connection, database_id, self._keys)

    def require_serving(self) -> None:
        """Raise `UnavailableError` if the database does not answer, or if it refused the last write of this
        process, within the last ten seconds, as full or read-only."""
        self.head()
        with read_transaction(self._engine) as connection:
            require_standby(connection)
        refusal = self._refusal
        if refusal is not None and time.monotonic() - self._refused_at_s < _REFUSAL_COUNTS_FOR_S:
            raise UnavailableError(refusal.reason, refusal.message)

    def dump(self) -> AbstractContextManager[SqlDump]:
        return open_dump(self._engine)

    def notifier(self) -> CommitNotifier:
        return open_notifier(self._engine, self._local_commits)

    def abort_connections(self) -> None:
        """Raise `UnavailableError` at once in every call that waits for the database, and in every later one:
        for a server that stops. To be called from any thread."""
        self._connections.abort_connections()

    def close(self) -> None:
        """Release every connection."""
        self._connections.close()
        self._engine.dispose()
