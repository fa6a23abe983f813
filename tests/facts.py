"""Facts by name, and the terms of memberships, for tests."""

from __future__ import annotations

from authz.domain.effective_roles import MembershipTerms
from authz.domain.entities import Membership
from authz.domain.facts import FACTS, FACTS_BY_NAME

BITS = [fact.bit for fact in FACTS]


def bits(*names: str) -> int:
    """The mask of these facts."""
    return sum(FACTS_BY_NAME[name].bit for name in names)


def terms_of(membership: Membership) -> MembershipTerms:
    """The terms of a membership."""
    m = membership
    return MembershipTerms(m.scope.kind, m.role, m.status, m.starts_at, m.ends_at, m.suspended_until)
