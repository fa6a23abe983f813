"""What the service asks of a store. Docstrings are obligations; one suite holds every store to them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Generic, Protocol

import msgspec

from authz.domain.context import ResourceContext, ScopeContext
from authz.domain.effective_roles import Grant
from authz.domain.entities import EntityT_co, Filter, Kind, ShareLevel, Versioned
from authz.domain.errors import AuthzError, ErrorReason, InvalidArgumentError
from authz.domain.ids import ResourceRef, Scope, Subject
from authz.domain.mutations import ImportBatchResult, LogChunk, LogTail, Mutation, WriteRequest
from authz.domain.tokens import ConsistencyToken


class Snapshot(Protocol):
    """All that a decision or a list reads, at one revision: every call sees the same state.

    A scan yields in key order: an order of the implementation, the same at every revision. To resume a scan,
    pass the last key that it gave as `after`, on this snapshot or on a later one: it continues behind that
    key, whether or not the key still exists. `revision` names the state that each part was read at.
    """

    @property
    def revision(self) -> int:
        """The revision of this state."""

    @property
    def state(self) -> ConsistencyToken:
        """This state."""

    @property
    def token(self) -> str:
        """This state, encoded for clients."""

    def scope(self, scope: Scope) -> ScopeContext | None:
        """The scope with its course, if it has one; None if either is not registered."""

    def resource(self, ref: ResourceRef, subject: Subject) -> ResourceContext | None:
        """The registered resource as the subject finds it; None if it is not registered, `SCOPE_MISSING` if
        its scope is not."""

    def grants(self, subject: Subject, scope: ScopeContext) -> tuple[Grant, ...]:
        """The subject's memberships in the scopes of a context that this snapshot gave, in no order."""

    def share(self, ref: ResourceRef, subject: Subject) -> ShareLevel | None:
        """The level at which the resource is shared with the subject, or None."""

    def scan_resources(
        self,
        *,
        scope: Scope | None = None,
        owner: Subject | None = None,
        shared_with: Subject | None = None,
        after: ResourceRef | None = None,
    ) -> Iterator[ResourceRef]:
        """The resources in a scope, of an owner, or shared with a subject: exactly one of the three."""

    def scan_members(
        self, scope: Scope, *, after: Subject | None = None
    ) -> Iterator[tuple[Subject, tuple[Grant, ...]]]:
        """Every subject with a membership in the scope, and its memberships there."""

    def scan_scopes(
        self, subject: Subject, *, after: Scope | None = None
    ) -> Iterator[tuple[Scope, tuple[Grant, ...]]]:
        """Every scope in which the subject has a membership, and its memberships there."""

    def scan_sessions(self, course_id: str, *, after: str | None = None) -> Iterator[str]:
        """The ids of the sessions of a course."""


class View(Protocol):
    """The read side of decisions."""

    def snapshot(self) -> Snapshot:
        """A consistent state, no staler than the operator's bound. It stays as it is for as long as it is
        held, and what was replaced since stays with it: do not hold it while you wait.

        Raises `UnavailableError` when there is none. Never waits; not for more than one thread at
        once.
        """

    def release_stale_snapshot(self) -> None:
        """Release what is kept of a state that is not the last any more; to be called now and then, by
        the thread that takes snapshots."""

    def revision(self) -> int:
        """The revision at hand, however stale. Raises `UnavailableError` when there is none. For any
        thread, as is `staleness_s`."""

    def database_id(self) -> str:
        """Of which database this is a view. Raises `UnavailableError` when there is none."""

    def staleness_s(self) -> float:
        """Seconds since this was known to hold the last committed revision; infinite for never."""


MAX_PAGE_SIZE = 1000


class Page(msgspec.Struct, frozen=True):
    """How much of a listing, and from where. Raises `InvalidArgumentError` for a size not of 1 to 1000."""

    size: int
    token: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.size <= MAX_PAGE_SIZE:
            raise InvalidArgumentError(
                ErrorReason.MALFORMED_FIELD,
                f"page_size is {self.size}; ask for 1 to {MAX_PAGE_SIZE}",
                field="page_size",
            )


class Listing(msgspec.Struct, Generic[EntityT_co], frozen=True):
    """A page of results, ordered by key, and the state it was read from. `next_token` is empty exactly when
    there is no more."""

    items: tuple[Versioned[EntityT_co], ...]
    next_token: str
    read_at: ConsistencyToken


class Dump(Protocol):
    """All that a database holds at one revision, however long it takes to read it, in bounded memory.

    Orders compare text by its bytes. Several iterators may be read in turns.
    """

    state: ConsistencyToken
    """Which revision of which database."""

    def entities(self, kind: Kind, by: str = "") -> Iterator[Any]:
        """All entities of a kind in the order of their keys, as listings have it; with `by`, a lookup of the
        kind, in the order of that field and then of the key, without those in which the field is None."""

    def values(self, kind: Kind, fields: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """The values of some fields of all entities of a kind, in the order of these values, without those
        in which the first is None. A tuple comes as often as there are entities with these values."""


class CommitNotifier(Protocol):
    """Tells when something may have been committed, by whichever process. One thread waits."""

    def wait(self, timeout_s: float, held: Callable[[], int]) -> None:
        """Return once the head may be beyond the revision that is held, or when time is up.

        Raises `UnavailableError` when the database does not answer.
        """

    def wake(self) -> None:
        """Let a waiting thread return; to be called from any other."""

    def close(self) -> None:
        """Release its connection."""


class Directory(Protocol):
    """The source of truth. Every call blocks and is safe to make from many threads.

    A call to a database that gives no answer raises `UnavailableError` after a timeout.
    """

    def write(self, request: WriteRequest) -> ConsistencyToken:
        """Apply all mutations in one transaction, or none; return the state that holds them.

        The next revision is taken and the effects are appended to the change log in that same
        transaction. A write that changes nothing takes no revision and returns the head. Deleting
        a course or session deletes, and logs, all that is in it. Raises AlreadyExistsError,
        FailedPreconditionError, InvalidArgumentError, ConflictError; then nothing has changed. After
        UnavailableError nobody knows: the commit may have been made and its answer lost.
        """

    def write_group(self, requests: Sequence[WriteRequest]) -> list[ConsistencyToken | AuthzError]:
        """Make several writes, each as `write` does, in one transaction and in order.

        Each takes a revision of its own, sees what those before it did, and is all or none by itself:
        the result has, in the order of the requests, the state of each or the error for which
        nothing of it was written. Of two with one idempotency key the second is answered as the
        first. Raises, as `write` does, when the transaction that they share fails; then what `write`
        says of that error holds for all of them.
        """

    def import_batch(
        self, mutations: Sequence[Mutation], *, offset: int, actor: str, request_id: str, reason: str
    ) -> ImportBatchResult:
        """Apply what can be applied of a batch, in one transaction.

        A mutation at fault is skipped and reported with its position, counted from `offset`.
        """

    def read(self, wanted: Filter[EntityT_co], page: Page) -> Listing[EntityT_co]:
        """A page of the entities of one kind that pass a filter, in the order of their keys."""

    def follow(self, after: int, limit: int) -> LogTail:
        """The head, and up to `limit` committed changes with a revision greater than `after`, in order, all
        of one state: who holds `after` can tell whether what follows belongs to the same history. Fewer, but
        one at least, when they are large."""

    def read_log(self, after: ConsistencyToken, skip: int, limit: int) -> LogChunk:
        """Up to `limit` mutations of the revisions after `after`, in order, without the first `skip`.

        So a reader takes a revision of any size in stretches of its own: `skip` counts the mutations
        of the revision after `after` that it has had. Raises `OutOfRangeError` (TOKEN_EXPIRED) when what
        comes next is no longer in the log, and when `after` is beyond the head or of another history.
        """

    def abort_connections(self) -> None:
        """Raise `UnavailableError` at once in every call that waits for the database, and in every later one:
        for a server that stops. To be called from any thread."""

    def head(self) -> ConsistencyToken:
        """The last committed state, with the id that the database has had since it was made."""

    def dump(self) -> AbstractContextManager[Dump]:
        """Everything, at one revision."""

    def notifier(self) -> CommitNotifier:
        """A new one. Connects when first waited for."""

    def close(self) -> None:
        """Release every connection."""
