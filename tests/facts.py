"""Facts by name, and grants of memberships, for tests."""

from __future__ import annotations

from authz.domain.effective_roles import Grant
from authz.domain.entities import Membership
from authz.domain.facts import FACTS, FACTS_BY_NAME

BITS = [fact.bit for fact in FACTS]


def bits(*names: str) -> int:
    """The mask of these facts."""
    return sum(FACTS_BY_NAME[name].bit for name in names)


def grant_of(membership: Membership) -> Grant:
    """The grant of a membership."""
    m = membership
    return Grant(m.scope.kind, m.role, m.status, m.starts_at, m.ends_at)
