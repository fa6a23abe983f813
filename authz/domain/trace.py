"""How a decision came about: what was looked at, and what each part of it said."""

from __future__ import annotations

import msgspec

from authz.domain.decisions import Rule
from authz.domain.effective_roles import Grant, InactiveReason
from authz.domain.facts import FACTS, Fact
from authz.domain.ids import Scope


class MembershipTrace(msgspec.Struct, frozen=True):
    """A membership that was looked at: the role that it gives, or why it gives none.

    `counts` is false for a role on the platform when content is asked about, which it never opens.
    """

    scope: Scope
    grant: Grant
    gives: str
    inactive_reason: InactiveReason | None
    counts: bool = True


class FactTrace(msgspec.Struct, frozen=True):
    """A fact with its value. `fact.computed_from` says from what."""

    fact: Fact
    holds: bool


class RuleTrace(msgspec.Struct, frozen=True):
    """A rule that speaks to the subject's roles about this type and action.

    It matches when `unmet`, the mask of its facts that do not hold, is 0.
    """

    rule: Rule
    unmet: int

    @property
    def matches(self) -> bool:
        """Whether every fact of its condition holds."""
        return self.unmet == 0


class Trace:
    """Filled by a decision that is asked to explain itself.

    `scopes` are those whose memberships count, the platform first; `memberships` are the subject's in them;
    `facts` is every fact, in the order of `FACTS`; `rules` is every rule that spoke: denies first, then
    allows, each in the order of the policy. A decision that ends early leaves the rest empty: without a role
    no rule is consulted.
    """

    __slots__ = ("facts", "memberships", "rules", "scopes")

    def __init__(self) -> None:
        self.scopes: tuple[Scope, ...] = ()
        self.memberships: tuple[MembershipTrace, ...] = ()
        self.facts: tuple[FactTrace, ...] = ()
        self.rules: tuple[RuleTrace, ...] = ()

    def set_facts(self, mask: int) -> None:
        """Record the value of every fact."""
        self.facts = tuple(FactTrace(fact, bool(mask & fact.bit)) for fact in FACTS)
