"""What the service requires of a store and a replica. Docstrings are obligations; one suite tests them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Generic, Protocol

import msgspec

from authz.domain.context import ResourceContext, ScopeContext
from authz.domain.effective_roles import Memberships, Suspension
from authz.domain.entities import (
    AccessToken,
    Course,
    CourseKey,
    EntityT_co,
    Kind,
    PolicyActivation,
    PolicyVersion,
    Resource,
    Session,
    SessionKey,
    ShareLevel,
    Versioned,
)
from authz.domain.errors import malformed
from authz.domain.ids import ResourceRef, Scope, Subject
from authz.domain.instants import Instant
from authz.domain.mutations import LogTail
from authz.domain.tokens import ConsistencyToken
from authz.domain.vocabulary import Vocabulary


class Snapshot(Protocol):
    """All that a decision or a list reads, at one revision: every call sees the same state.

    A scan yields in key order: an order of the implementation, the same at every revision. To resume a scan,
    pass the last key that it gave as `after`, on this snapshot or on a later one: it continues behind that
    key, whether or not the key still exists. A scan leaves out what is in a scope that is gone: the rest of a
    large deletion.
    """

    revision: int
    """The revision of this state."""
    state: ConsistencyToken
    """This state."""
    token: str
    """This state, encoded for clients."""
    policy: PolicyVersion | None
    """The active version of the platform's policy; None before there is one."""

    def policy_version(self, activation: PolicyActivation) -> PolicyVersion | None:
        """The version that an activation names; None if this state does not have it."""

    def has_course_policies(self) -> bool:
        """Whether any course has a policy of its own."""

    def scope(self, scope: Scope) -> ScopeContext | None:
        """The scope with its course, if it has one; None if either is not registered."""

    def resource(self, ref: ResourceRef, subject: Subject) -> ResourceContext | None:
        """The registered resource as the subject finds it; `DELETED` if it was registered once, None if it
        never was, `SCOPE_MISSING` if its scope is not."""

    def record(self, key: CourseKey | SessionKey | ResourceRef) -> Course | Session | Resource | None:
        """The record with a key, as it was written; None if it is not registered."""

    def owner(self, ref: ResourceRef) -> Subject | None:
        """The owner of a registered resource; None without one."""

    def memberships(self, subject: Subject, scope: ScopeContext) -> Memberships:
        """The subject's memberships in the scopes of a context that this snapshot gave, in no order."""

    def suspension(self, subject: Subject) -> Suspension | None:
        """The suspension of the subject's account, also one that is over, or the restriction of its data, or
        both; None without any."""

    def access_token(self, id_: str) -> AccessToken | None:
        """The access token with an id, also one that has ended; None without one."""

    def share(self, ref: ResourceRef, subject: Subject) -> ShareLevel | None:
        """The level at which the resource is shared with the subject, or None."""

    def scan_contexts(
        self, subject: Subject | None = None, *, start: tuple[str, str] = ("", "")
    ) -> Iterator[ScopeContext | None]:
        """The courses and sessions in which memberships of the subject count; without one, all there are.

        Courses in key order, each followed by its sessions, and at the end the sessions without a course.
        `start` is the ids of a course and a session, empty for none: begins there, whether or not it exists.
        A course whose membership has begun or ended between two scans has its place all the same. None stands
        for a record that was looked at and is not among them.
        """

    def scan_content(
        self,
        scope: ScopeContext,
        type_name: str,
        subject: Subject,
        *,
        after: str = "",
        only_own: bool = False,
    ) -> Iterator[tuple[str, ResourceContext]]:
        """The resources of a type in a context that this snapshot gave, behind an id: the id of each, and how
        the subject finds it. `only_own` leaves out what the subject neither owns nor has a share of, at no
        cost."""

    def scan_members(
        self, scope: ScopeContext, *, platform: bool, after: Subject | None = None
    ) -> Iterator[Subject]:
        """Every subject with a membership that counts in a context that this snapshot gave; those of the
        platform only if `platform` is set."""

    def scan_holders(self, ref: ResourceRef, *, after: Subject | None = None) -> Iterator[Subject]:
        """The owner of a resource, and every subject that has a share of it."""

    def scan_memberships(self, scope: ScopeContext) -> Iterator[tuple[Subject, Memberships]]:
        """Every subject with a membership in the scope itself, and its memberships there."""

    def scan_owned(
        self, scope: ScopeContext, type_name: str
    ) -> Iterator[tuple[ResourceRef, Subject | None, ResourceContext]]:
        """The resources of a type in the scope itself: each with its owner, and as somebody finds it who does
        not own it."""

    def scan_shares(self, ref: ResourceRef) -> Iterator[tuple[Subject, ShareLevel]]:
        """Every subject that the resource is shared with, and the level."""

    def count_members(self) -> int:
        """How many pairs there are of a scope and a subject with a membership in it."""


class View(Protocol):
    """The read side of decisions."""

    policy_number: int
    """The number of the platform's policy in the newest state that `snapshot` gave; 0 before there is
    one. For any thread."""

    def snapshot(self) -> Snapshot:
        """The newest state, no staler than the operator's limit.

        A snapshot never changes, and old data cannot be freed while you hold it: do not hold it while you
        wait. Raises `UnavailableError` if there is none, and while it is behind what `require` named. Never
        blocks. For one thread at a time.
        """

    def release_stale_snapshot(self) -> None:
        """Release a cached snapshot that is no longer the newest. Call it periodically, from the thread that
        takes snapshots."""

    def require(self, state: ConsistencyToken) -> None:
        """From now on give no snapshot, in any process of this machine, that does not hold a committed state.

        From the thread that takes snapshots."""

    def is_behind(self) -> bool:
        """Whether a state that `require` named has not arrived yet. For any thread."""

    def revision(self) -> int:
        """The revision of the newest state, however stale. Raises `UnavailableError` if there is none. For
        any thread, as is `staleness_s`."""

    def database_id(self) -> str:
        """The id of the database that this is a view of. Raises `UnavailableError` if there is no state."""

    def generation(self) -> int:
        """A number that changes whenever `cleared` does, at once in all processes of the machine. For any
        thread."""

    def cleared(self) -> int:
        """The revision up to which nothing is left in the files of what was erased. Raises `UnavailableError`
        if there is no state. From the thread that takes snapshots."""

    def staleness_s(self) -> float:
        """Seconds since the view was known to hold the last committed revision; infinite if never."""


class Vocabularies(Protocol):
    """Gives the names that are valid under a version of the policy."""

    def __call__(self, active: PolicyActivation | None, read: Callable[[], PolicyVersion], /) -> Vocabulary:
        """The vocabulary of the active version, which `read` reads if it is not known yet.

        Raises `UnavailableError` if there is no active version, or one that this process cannot read.
        """


MAX_PAGE_SIZE = 1000


class Page(msgspec.Struct, frozen=True):
    """The size and start of a page. Raises `InvalidArgumentError` unless the size is 1 to 1,000."""

    size: int
    token: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.size <= MAX_PAGE_SIZE:
            raise malformed("page_size", f"is {self.size}; ask for 1 to {MAX_PAGE_SIZE}")


class Listing(msgspec.Struct, Generic[EntityT_co], frozen=True):
    """A page of results, ordered by key, and the state that was read. `next_token` is empty exactly on the
    last page."""

    items: tuple[Versioned[EntityT_co], ...]
    next_token: str
    read_at: ConsistencyToken


class Dump(Protocol):
    """Everything in a database at one revision, however long the reading takes, in bounded memory.

    Text is ordered by bytes. Several iterators may be read alternately.
    """

    state: ConsistencyToken
    """The state that is read."""
    token_key: bytes
    """The key of the database's tokens. It is a secret."""

    def entities(self, kind: Kind, by: str = "") -> Iterator[Any]:
        """All entities of a kind, ordered by key as in listings. With `by`, a lookup field of the kind:
        ordered by that field, then by key, without entities in which the field is None."""

    def tombstones(self) -> Iterator[tuple[ResourceRef, Instant]]:
        """The resources that were registered and are not any more, and since when, ordered by type and id."""

    def values(self, kind: Kind, fields: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """The values of some fields of all entities of a kind, ordered by these values, without tuples whose
        first value is None. Yields one tuple per entity, so a tuple may repeat."""


class CommitNotifier(Protocol):
    """Reports commits of every process. One thread waits."""

    def wait(self, timeout_s: float, held: Callable[[], int]) -> None:
        """Return once the head may be beyond the held revision, or after the timeout.

        Raises `UnavailableError` if the database does not answer.
        """

    def wake(self) -> None:
        """Make `wait` return. For any thread."""

    def close(self) -> None:
        """Release its connection."""


class ChangeSource(Protocol):
    """The source of truth, as a replica follows it. Every call blocks and is safe to make from many threads.

    A call to a database that gives no answer raises `UnavailableError` after a timeout.
    """

    def follow(self, after: int, limit: int) -> LogTail:
        """The head, the state at `after`, and up to `limit` later changes, in order, from one transaction.

        A follower that holds `after` can tell whether the changes belong to its history. If changes are
        large, there are fewer than `limit`, but at least one.
        """

    def dump(self) -> AbstractContextManager[Dump]:
        """Open a dump of everything, at one revision."""

    def notifier(self) -> CommitNotifier:
        """A new notifier, which connects at the first `wait`."""
