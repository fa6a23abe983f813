"""A restriction of the processing of a subject's data: its key and filter."""

from __future__ import annotations

import msgspec

from authz.domain.ids import Subject
from authz.domain.instants import Instant
from authz.domain.kinds.erasure import SERVICE
from authz.domain.kinds.kind import Filter, Kind, RecordKey


class RestrictionKey(RecordKey, frozen=True, gc=False, tag="restriction_key"):
    """Identifies a restriction."""

    subject: Subject

    def __str__(self) -> str:
        return f"restriction of {self.subject}"


class Restriction(msgspec.Struct, frozen=True, gc=False, tag_field="kind", tag="restriction"):
    """A subject whose data is in dispute: no record gives it access, and its data is neither erased nor
    purged.

    Who may read accounts sees it, so it does not say why: its revision in the change log does.
    """

    subject: Subject
    since: Instant

    @property
    def key(self) -> RestrictionKey:
        """Its identity."""
        return RestrictionKey(self.subject)


class RestrictionFilter(Filter[Restriction], frozen=True, kw_only=True):
    """Restrictions by subject."""

    subject: Subject | None = None


RESTRICTION = Kind(Restriction, RestrictionKey, RestrictionFilter, key_order=("subject",), service=SERVICE)
