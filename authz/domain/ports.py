"""What the service asks of a store. Docstrings are obligations; one suite holds every store to them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Generic, Protocol

import msgspec

from authz.domain.entities import (
    Course,
    CourseState,
    EntityT_co,
    Membership,
    MembershipStatus,
    Resource,
    Session,
    SessionState,
    Share,
    Versioned,
)
from authz.domain.ids import ResourceRef, Scope, Subject
from authz.domain.mutations import Change, ImportBatchResult, LogStretch, Mutation, WriteRequest
from authz.domain.tokens import ConsistencyToken


class Snapshot(Protocol):
    """All that a decision reads, at one revision: every call sees the same state."""

    @property
    def revision(self) -> int:
        """The revision of this state."""

    def course(self, course_id: str) -> Course | None:
        """The course, or None."""

    def session(self, session_id: str) -> Session | None:
        """The session, or None."""

    def resource(self, ref: ResourceRef) -> Resource | None:
        """The registered resource, or None."""

    def memberships(self, subject: Subject, scopes: Sequence[Scope]) -> tuple[Membership, ...]:
        """Those of the subject in any of the scopes, whatever their status, in no order."""

    def share(self, ref: ResourceRef, subject: Subject) -> Share | None:
        """The share of the resource with the subject, or None."""


class View(Protocol):
    """The read side of decisions."""

    def snapshot(self) -> AbstractContextManager[Snapshot]:
        """A consistent state no older than the last write that this process acknowledged.

        Raises `UnavailableError` when the store is away. Blocks; safe to call from many threads.
        """


class Page(msgspec.Struct, frozen=True):
    """How much of a listing, and from where. `size` is 1 to 1000."""

    size: int
    token: str = ""


class CourseFilter(msgspec.Struct, frozen=True, kw_only=True):
    """An empty field filters nothing; fields that are set must all match. So for all filters."""

    ids: tuple[str, ...] = ()
    states: tuple[CourseState, ...] = ()


class SessionFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Sessions by id, course, state."""

    ids: tuple[str, ...] = ()
    course_id: str | None = None
    states: tuple[SessionState, ...] = ()


class MembershipFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Memberships by subject, scope, role, status, source."""

    subject: Subject | None = None
    scope: Scope | None = None
    role: str | None = None
    statuses: tuple[MembershipStatus, ...] = ()
    source: str | None = None


class ResourceFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Resources by type, ids (with a type), scope, owner."""

    type: str | None = None
    ids: tuple[str, ...] = ()
    scope: Scope | None = None
    owner: Subject | None = None


class ShareFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Shares by resource or by subject."""

    resource: ResourceRef | None = None
    subject: Subject | None = None


class Listing(msgspec.Struct, Generic[EntityT_co], frozen=True):
    """A page of results, ordered by key. `next_token` is empty exactly when there is no more."""

    items: tuple[Versioned[EntityT_co], ...]
    next_token: str
    revision: int


class Directory(Protocol):
    """The source of truth. Every call blocks and is safe to make from many threads."""

    @property
    def database_id(self) -> str:
        """Identifies this database for good; made with its first migration."""

    def write(self, request: WriteRequest) -> int:
        """Apply all mutations in one transaction, or none; return the revision that holds them.

        The next revision is taken and the effects are appended to the change log in that same
        transaction. A write that changes nothing takes no revision and returns the head. Deleting
        a course or session deletes, and logs, all that is in it. Raises AlreadyExistsError,
        FailedPreconditionError, InvalidArgumentError, ConflictError, UnavailableError; then nothing
        has changed.
        """

    def import_batch(
        self, mutations: Sequence[Mutation], *, offset: int, actor: str, request_id: str, reason: str
    ) -> ImportBatchResult:
        """Apply what can be applied of a batch, in one transaction.

        A mutation at fault is skipped and reported with its position, counted from `offset`.
        """

    def courses(self, wanted: CourseFilter, page: Page) -> Listing[Course]:
        """Courses, ordered by id."""

    def sessions(self, wanted: SessionFilter, page: Page) -> Listing[Session]:
        """Sessions, ordered by id."""

    def memberships(self, wanted: MembershipFilter, page: Page) -> Listing[Membership]:
        """Memberships, ordered by scope, subject, role."""

    def resources(self, wanted: ResourceFilter, page: Page) -> Listing[Resource]:
        """Resources, ordered by type and id."""

    def shares(self, wanted: ShareFilter, page: Page) -> Listing[Share]:
        """Shares, ordered by resource and subject."""

    def changes(self, after: int, limit: int) -> tuple[Change, ...]:
        """Up to `limit` committed changes with a revision greater than `after`, in order, gapless."""

    def read_log(self, after: int, skip: int, limit: int) -> LogStretch:
        """Up to `limit` mutations of the revisions after `after`, in order, without the first `skip`.

        So a reader takes a revision of any size in stretches of its own: `skip` counts the mutations
        of the revision `after` + 1 that it has had. Raises `OutOfRangeError` (TOKEN_EXPIRED) when what
        comes next is no longer in the log, and when `after` is beyond the head.
        """

    def head(self) -> ConsistencyToken:
        """The last committed revision."""

    def close(self) -> None:
        """Release every connection."""
