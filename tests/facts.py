"""Facts by name, the flags of resources, and the terms of memberships, for tests."""

from __future__ import annotations

from hypothesis import strategies as st

from authz.domain.effective_roles import MembershipTerms
from authz.domain.entities import KINDS, Membership
from authz.domain.facts import FACTS, FACTS_BY_NAME
from authz.domain.kinds.fields import FieldType

FLAGS = {
    field.name: st.booleans() for field in KINDS["resource"].other_fields if field.type is FieldType.FLAG
}
"""Every yes or no of a resource, which facts are about."""
BITS = [fact.bit for fact in FACTS]


def bits(*names: str) -> int:
    """The mask of these facts."""
    return sum(FACTS_BY_NAME[name].bit for name in names)


def terms_of(membership: Membership) -> MembershipTerms:
    """The terms of a membership."""
    m = membership
    return MembershipTerms(m.scope.kind, m.role, m.status, m.starts_at, m.ends_at, m.suspended_until)
