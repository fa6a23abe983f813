"""How a decision came about: what was looked at, and what each part of it said."""

from __future__ import annotations

import msgspec

from authz.domain.context import ResourceContext
from authz.domain.decisions import Reason, Rule
from authz.domain.effective_roles import InactiveReason, MembershipTerms
from authz.domain.facts import fact_names
from authz.domain.ids import Scope


class MembershipTrace(msgspec.Struct, frozen=True):
    """A membership that was looked at: the role that it gives, or why it gives none.

    `counts` is false for a role on the platform when content is asked about, which it never opens.
    """

    scope: Scope
    terms: MembershipTerms
    gives: str
    inactive_reason: InactiveReason | None
    counts: bool = True


class RuleTrace(msgspec.Struct, frozen=True):
    """A rule that speaks to the subject's roles about this type and action.

    It matches when `unmet` is 0: the mask of the facts that it requires and that do not hold, and of those
    that it negates and that hold.
    """

    rule: Rule
    unmet: int

    @property
    def unmet_facts(self) -> tuple[str, ...]:
        """The names of the facts in `unmet`."""
        return fact_names(self.unmet)

    @property
    def matches(self) -> bool:
        """Whether its condition holds."""
        return self.unmet == 0


class Trace:
    """Filled by a decision that is asked to explain itself.

    `scopes` are those whose memberships count, the platform first; `memberships` are the subject's in them;
    `facts` is the mask of all facts that hold, None if none was computed; `rules` is every rule that spoke:
    denies first, then allows, each in the order of the policy. A decision that ends early leaves the rest
    empty: without a role no rule is consulted. `located` is the resource, or why there is none.
    """

    __slots__ = ("facts", "located", "memberships", "rules", "scopes")

    def __init__(self) -> None:
        self.located: ResourceContext | Reason | None = None
        self.scopes: tuple[Scope, ...] = ()
        self.memberships: tuple[MembershipTrace, ...] = ()
        self.facts: int | None = None
        self.rules: tuple[RuleTrace, ...] = ()
