"""A membership: its key, statuses, filter and rules."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from authz.domain.ids import Scope, Subject
from authz.domain.instants import Instant
from authz.domain.kinds.fields import MaxLength, RoleName, validate_span
from authz.domain.kinds.kind import Filter, Kind, RecordKey
from authz.domain.kinds.session import IN_SCOPE
from authz.domain.vocabulary import Vocabulary

_Source = Annotated[str, MaxLength(128)]
_SourceRef = Annotated[str, MaxLength(256)]


class MembershipStatus(StrEnum):
    """The state of a membership, apart from its dates."""

    INVITED = "INVITED"
    ACTIVE = "ACTIVE"
    COMPLETED = "COMPLETED"
    SUSPENDED = "SUSPENDED"


class MembershipKey(RecordKey, frozen=True, gc=False, tag="membership_key"):
    """Identifies a membership: one row to revoke for a subject, a scope and a role."""

    subject: Subject
    scope: Scope
    role: RoleName

    def __str__(self) -> str:
        return f"membership {self.subject} {self.role} in {self.scope}"


class Membership(msgspec.Struct, frozen=True, gc=False, tag_field="kind", tag="membership"):
    """One subject, one scope, one role. In effect while `starts_at` <= t < `ends_at`.

    While its status is SUSPENDED, which only another write ends, and also until `suspended_until`, whatever
    its status, the subject has no role in the scope, by this membership or by another one.
    """

    subject: Subject
    scope: Scope
    role: RoleName
    status: MembershipStatus = MembershipStatus.ACTIVE
    starts_at: Instant | None = None
    ends_at: Instant | None = None
    source: _Source = ""
    source_ref: _SourceRef = ""
    suspended_until: Instant | None = None

    @property
    def key(self) -> MembershipKey:
        """Its identity."""
        return MembershipKey(self.subject, self.scope, self.role)

    def has_ended(self, now: Instant) -> bool:
        """Whether its end has passed."""
        return self.ends_at is not None and self.ends_at <= now


class MembershipFilter(Filter[Membership], frozen=True, kw_only=True):
    """Memberships by subject, scope, role, status, source."""

    subject: Subject | None = None
    scope: Scope | None = None
    role: RoleName | None = None
    statuses: tuple[MembershipStatus, ...] = ()
    source: _Source | None = None


def _validate(membership: Membership, vocabulary: Vocabulary) -> None:
    validate_span(membership.starts_at, membership.ends_at, names=("starts_at", "ends_at"))
    vocabulary.require_role(membership.role, membership.scope.kind)


MEMBERSHIP = Kind(
    Membership,
    MembershipKey,
    MembershipFilter,
    key_order=("scope", "subject", "role"),
    container=IN_SCOPE,
    lookups=("subject",),
    rule=_validate,
)
