"""A hold, which keeps a subject from being erased: its key and filter."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

from authz.domain.ids import Subject
from authz.domain.instants import Instant
from authz.domain.kinds.erasure import SERVICE
from authz.domain.kinds.fields import MaxLength, Reason
from authz.domain.kinds.kind import Filter, Kind, RecordKey

_Actor: TypeAlias = Annotated[str, MaxLength(512)]


class HoldKey(RecordKey, frozen=True, gc=False, tag="hold_key"):
    """Identifies a hold."""

    subject: Subject

    def __str__(self) -> str:
        return f"hold on {self.subject}"


class Hold(msgspec.Struct, frozen=True, gc=False, tag_field="kind", tag="hold"):
    """A subject that nobody may erase, and whose data a purge keeps: why, who placed the hold, and when."""

    subject: Subject
    reason: Reason
    actor: _Actor
    since: Instant

    @property
    def key(self) -> HoldKey:
        """Its identity."""
        return HoldKey(self.subject)


class HoldFilter(Filter[Hold], frozen=True, kw_only=True):
    """Holds by subject."""

    subject: Subject | None = None


HOLD = Kind(Hold, HoldKey, HoldFilter, key_order=("subject",), service=SERVICE)
