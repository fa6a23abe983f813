"""What the service requires of a store about one subject. Docstrings are obligations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from authz.domain.entities import Erasure
from authz.domain.erasures import ErasureCertificate, ErasureRequest, Hold, RenameRequest
from authz.domain.exports import ExportItem
from authz.domain.ids import Subject
from authz.domain.ports import Listing, Page
from authz.domain.tokens import ConsistencyToken


class Export(Protocol):
    """Everything that is held about one subject at one state, in bounded memory."""

    state: ConsistencyToken
    """The state that is read."""

    def items(self) -> Iterator[ExportItem]:
        """Records in an order in which they may be written, then changes in the order of the log, then
        everything else."""


class PersonalData(Protocol):
    """What is held about subjects. Every call blocks and is safe to make from many threads."""

    def export(self, subject: Subject) -> AbstractContextManager[Export]:
        """Open an export, which lasts as long as the block."""

    def begin_erasure(self, request: ErasureRequest) -> Subject:
        """Refuse writes that name the subject from now on, and return its pseudonym. The rest is done by
        `advance_erasure`, also after a crash.

        Raises `FailedPreconditionError` for a subject that is held (SUBJECT_HELD), was erased
        (SUBJECT_ERASED), is the last to administer the platform (LAST_ADMINISTRATOR), or owns resources that
        the request gives to nobody; `InvalidArgumentError` for a request that contradicts itself. Then
        nothing has changed.
        """

    def erasure_progress(self) -> object | None:
        """How far the first erasure has come that is not complete: another value after each step. None if
        nothing is left to erase. Takes no lock."""

    def advance_erasure(self) -> ConsistencyToken:
        """Do one bounded step of that erasure; return the state after it. Several processes may try: a step
        is done once. Raises `ConflictError` while a reader keeps the database's log from being emptied."""

    def certificate(self, pseudonym: Subject) -> ErasureCertificate:
        """What an erasure has done so far, and which machines have confirmed it."""

    def erasures(self, subject: Subject | None, page: Page) -> Listing[Erasure]:
        """A page of all erasures, or of those of a subject, ordered by pseudonym."""

    def release(self, subject: Subject, *, actor: str, reason: str, request_id: str) -> ConsistencyToken:
        """Let writes name an erased subject again. Raises `FailedPreconditionError` if it was not erased, or
        not completely."""

    def rename(self, request: RenameRequest) -> tuple[ConsistencyToken, dict[str, int]]:
        """Give every record of a subject to another, which may have some of its own, under one revision;
        return the state after it, and how many of each kind.

        Raises `FailedPreconditionError`, and changes nothing, if both have a record for the same thing and
        the two differ, if there are too many for one revision or none, or if the other subject was erased.
        """

    def hold(self, subject: Subject, reason: str, actor: str) -> None:
        """Keep a subject from being erased, for a reason that replaces an earlier one."""

    def release_hold(self, subject: Subject) -> None:
        """Let it be erased again. Raises `FailedPreconditionError` if it is not held."""

    def holds(self) -> tuple[Hold, ...]:
        """All holds, ordered by subject."""

    def report_replica(self, name: str, cleared: int) -> None:
        """Record that a machine has a replica, in whose files nothing is left of what was erased up to a
        revision."""

    def forget_replica(self, name: str) -> None:
        """Forget a machine that is gone for good. Raises `FailedPreconditionError` for an unknown name."""
