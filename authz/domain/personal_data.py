"""What the service requires of a store about one subject. Docstrings are obligations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from authz.domain.entities import Erasure, Hold, RetentionRule, Versioned
from authz.domain.erasures import ErasureCertificate, ErasureRequest, RenameRequest
from authz.domain.exports import ExportItem
from authz.domain.ids import Subject
from authz.domain.origin import Origin
from authz.domain.ports import Listing, Page
from authz.domain.tokens import ConsistencyToken


class Export(Protocol):
    """Everything that the store holds about one subject at one state, in bounded memory."""

    state: ConsistencyToken
    """The state that is read."""
    rules: tuple[RetentionRule, ...]
    """How long data is kept."""

    def items(self) -> Iterator[ExportItem]:
        """Records in an order in which they may be written, then changes in the order of the log, then
        everything else."""


class PersonalData(Protocol):
    """Personal data in the store. Every call blocks and is thread-safe."""

    def export(self, subject: Subject) -> AbstractContextManager[Export]:
        """Open an export for the duration of the block."""

    def begin_erasure(self, request: ErasureRequest) -> Subject:
        """Refuse writes that name the subject from now on, and return its pseudonym. `advance_erasure` does
        the rest, also after a crash.

        Raises `FailedPreconditionError` for a subject that is held (SUBJECT_HELD), was erased
        (SUBJECT_ERASED), is getting the resources of somebody who is being erased, is the last administrator
        of the platform (LAST_ADMINISTRATOR), or owns resources for which the request names no owner;
        `InvalidArgumentError` for a request that contradicts itself. If it raises, nothing has changed.
        """

    def erasure_progress(self) -> object | None:
        """The progress of the first incomplete erasure, a different value after each step. None if nothing is
        left to erase. Takes no lock."""

    def advance_erasure(self) -> ConsistencyToken:
        """Do one bounded step of that erasure; return the state after it. If several processes try, one does
        the step. Raises `ConflictError` while a reader blocks the truncation of the database's log."""

    def certificate(self, pseudonym: Subject) -> ErasureCertificate:
        """The certificate of an erasure so far, with the machines that have confirmed it."""

    def erasures(self, subject: Subject | None, page: Page) -> Listing[Erasure]:
        """A page of all erasures, or of those of a subject, ordered by pseudonym."""

    def release(self, subject: Subject, origin: Origin) -> ConsistencyToken:
        """Allow writes to name an erased id again. Raises `FailedPreconditionError` if it was not erased, or
        not completely."""

    def rename(self, request: RenameRequest) -> tuple[ConsistencyToken, dict[str, int]]:
        """Move every record of a subject to another, which may already have records, in one revision; return
        the state after it, and the number of records of each kind.

        Raises `FailedPreconditionError`, and changes nothing, if both have differing records for the same
        thing, if there are no records or too many for one revision, if the subject is held or getting the
        resources of somebody who is being erased, or if one of the two was erased; `RemovalPendingError`
        while the shares of one of the two that ended are being removed.
        """

    def hold(self, subject: Subject, origin: Origin) -> ConsistencyToken:
        """Block the erasure of a subject. A new hold replaces an earlier one.

        Raises `FailedPreconditionError` (SUBJECT_ERASED) if its erasure has begun.
        """

    def release_hold(self, subject: Subject, origin: Origin) -> ConsistencyToken:
        """End the hold on a subject. Raises `FailedPreconditionError` if it is not held."""

    def holds(self) -> tuple[Versioned[Hold], ...]:
        """All holds, ordered by subject."""

    def report_replica(self, name: str, cleared: int) -> None:
        """Record that a machine has a replica, whose files are free of everything that was erased up to a
        revision."""

    def forget_replica(self, name: str) -> None:
        """Forget a decommissioned machine. Raises `FailedPreconditionError` for an unknown name."""
