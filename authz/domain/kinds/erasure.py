"""The erasure of a subject: its key, statuses, filter."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, TypeAlias

import msgspec

from authz.domain.ids import Subject
from authz.domain.instants import Instant
from authz.domain.kinds.fields import MaxLength, Reason
from authz.domain.kinds.kind import Filter, Kind, RecordKey

SERVICE = "PrivacyService"

_Mac: TypeAlias = Annotated[str, MaxLength(64)]


class ErasureStatus(StrEnum):
    """How far an erasure has come."""

    ERASING = "ERASING"
    """Writes that name the subject fail; its records and its id in the history are being removed."""
    ERASED = "ERASED"
    """Records and history no longer name the subject. Every machine rewrites its files."""
    COMPLETE = "COMPLETE"
    """The database files are rewritten, too."""


class ErasureKey(RecordKey, frozen=True, gc=False, tag="erasure_key"):
    """Identifies an erasure."""

    pseudonym: Subject

    def __str__(self) -> str:
        return f"erasure {self.pseudonym.id}"


class Erasure(msgspec.Struct, frozen=True, gc=False, tag_field="kind", tag="erasure"):
    """A subject was erased, and in the history `pseudonym` stands for it.

    `mac` is the HMAC of the subject under the database's key: it tells whether a subject that somebody names
    is this one, and tells nobody who it was. With `released`, writes may name the subject again.
    """

    pseudonym: Subject
    mac: _Mac
    status: ErasureStatus
    started_at: Instant
    reason: Reason = ""
    released: bool = False

    @property
    def key(self) -> ErasureKey:
        """Its identity."""
        return ErasureKey(self.pseudonym)


class ErasureFilter(Filter[Erasure], frozen=True, kw_only=True):
    """Erasures by HMAC, or the one with a pseudonym."""

    mac: _Mac | None = None
    pseudonym: Subject | None = None


ERASURE = Kind(
    Erasure, ErasureKey, ErasureFilter, key_order=("pseudonym",), lookups=("mac",), service=SERVICE
)
