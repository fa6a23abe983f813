"""The rules as an immutable index, and the decision over it.

(roles, type, action) leads to a plan: clauses, each a bit mask of facts with the rule it came from.
Inheritance, wildcards and course overrides are resolved when it is made; a decision is a look-up and
a few integer operations, and costs the same however many courses have overrides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import reduce
from operator import or_
from types import MappingProxyType
from typing import TypeAlias

import msgspec

from authz.domain.decisions import Reason, Rule, Verdict
from authz.domain.facts import FACT_NAMES
from authz.domain.ids import Scope, ScopeKind, parse_scope
from authz.domain.vocabulary import Vocabulary

_ANY = "*"
_DENY = "deny"
_MAX_PLANS = 4096
"""Kept by a book. Only role sets that memberships give make plans, so that this is far away."""


class Clause(msgspec.Struct, frozen=True):
    """One rule: it matches when every fact of `mask` holds. `place` orders clauses as in the file."""

    mask: int
    rule: Rule
    place: int


Index: TypeAlias = Mapping[tuple[str, str, str], tuple[Clause, ...]]
"""(role, type, action) to clauses in the order of the file."""


class CompiledRules:
    """What the rules say to one set of roles about one action of one type, for any facts.

    `required_facts` is the mask of the facts that its clauses name; no other fact changes its verdict.
    """

    __slots__ = ("_allows", "_denies", "_verdicts", "required_facts")

    def __init__(self, denies: Iterable[Clause], allows: Iterable[Clause]) -> None:
        self._denies = tuple(sorted(denies, key=lambda clause: clause.place))
        self._allows = tuple(sorted(allows, key=lambda clause: clause.place))
        self.required_facts = reduce(or_, (clause.mask for clause in (*self._denies, *self._allows)), 0)
        # At most one for each combination of the facts asked for.
        self._verdicts: dict[int, Verdict] = {}

    def verdict(self, facts: int) -> Verdict:
        """Any matching deny wins, then any matching allow; of several the first in the file is named."""
        facts &= self.required_facts
        known = self._verdicts.get(facts)
        if known is None:
            known = self._verdicts[facts] = self._decide(facts)
        return known

    def _decide(self, facts: int) -> Verdict:
        for clause in self._denies:
            if clause.mask & facts == clause.mask:
                return Verdict(False, Reason.EXPLICIT_DENY, clause.rule)
        for clause in self._allows:
            if clause.mask & facts == clause.mask:
                return Verdict(True, Reason.ROLE_GRANT, clause.rule)
        if not self._allows:
            return Verdict(False, Reason.NO_RULE)
        # The one that misses the fewest facts; of those the first in the file.
        nearest = min(self._allows, key=lambda c: ((c.mask & ~facts).bit_count(), c.place))
        return Verdict(False, Reason.CONDITION_NOT_MET, nearest.rule, nearest.mask & ~facts)


class Rulebook:
    """The clauses of one scope, and the plans made from them and from those of the platform."""

    __slots__ = ("allows", "denies", "plans")

    def __init__(self, denies: Index, allows: Index) -> None:
        self.denies = denies
        self.allows = allows
        self.plans: dict[tuple[frozenset[str], str, str], CompiledRules] = {}


class CompiledPolicy:
    """One version of the policy. Immutable: a new version is made beside it and swapped in whole."""

    def __init__(
        self,
        version: str,
        vocabulary: Vocabulary,
        rules: tuple[Rule, ...],
        platform: Rulebook,
        overrides: Mapping[str, Rulebook],
    ) -> None:
        """`overrides` are by the id of their course."""
        self.version = version
        self.vocabulary = vocabulary
        self.rules = rules
        self._platform = platform
        self._overrides = dict(overrides)

    def plan(
        self, roles: frozenset[str], course_id: str | None, type_name: str, action: str
    ) -> CompiledRules:
        """What the platform's rules and the overrides of the course, if there is one, say together.

        Without roles nothing matches.
        """
        override = self._overrides.get(course_id) if self._overrides and course_id is not None else None
        book = self._platform if override is None else override
        key = (roles, type_name, action)
        plan = book.plans.get(key)
        if plan is None:
            plan = self._make_plan(key, override)
            if len(book.plans) >= _MAX_PLANS:
                book.plans.clear()
            book.plans[key] = plan
        return plan

    def decide(self, roles: frozenset[str], scope: Scope, type_name: str, action: str, facts: int) -> Verdict:
        """What the rules say of a resource in `scope`."""
        course_id = scope.id if scope.kind is ScopeKind.COURSE else None
        return self.plan(roles, course_id, type_name, action).verdict(facts)

    def allows_of(self, role: str, type_name: str, action: str) -> tuple[Rule, ...]:
        """The platform's allow rules that a role has, inherited ones among them, in order."""
        return tuple(clause.rule for clause in self._platform.allows.get((role, type_name, action), ()))

    def _make_plan(self, key: tuple[frozenset[str], str, str], override: Rulebook | None) -> CompiledRules:
        roles, type_name, action = key
        books = (self._platform,) if override is None else (self._platform, override)

        def clauses(indexes: Iterable[Index]) -> dict[int, Clause]:
            """By place: a clause that several roles have counts once."""
            return {
                clause.place: clause
                for index in indexes
                for role in roles
                for clause in index.get((role, type_name, action), ())
            }

        denies = clauses(book.denies for book in books)
        return CompiledRules(denies.values(), clauses(book.allows for book in books).values())


def condition_mask(condition: str) -> int:
    """The facts of a condition as a mask; 0 for the empty one."""
    if not condition:
        return 0
    return reduce(or_, (int(FACT_NAMES[name.strip()]) for name in condition.split("&")))


def compile_policy(
    version: str, vocabulary: Vocabulary, inherited: Mapping[str, frozenset[str]], rules: tuple[Rule, ...]
) -> CompiledPolicy:
    """Make the index. `inherited` gives for each role all roles whose rules it has."""
    by_scope: dict[str, list[Clause]] = defaultdict(list)
    for place, rule in enumerate(rules):
        by_scope[rule.scope].append(Clause(condition_mask(rule.condition), rule, place))
    heirs = {
        name: tuple(role for role, bases in inherited.items() if name in bases) for name in vocabulary.roles
    }
    heirs[_ANY] = tuple(vocabulary.roles)
    platform = _rulebook(by_scope.pop(_ANY, ()), vocabulary, heirs)
    overrides = {
        parse_scope(scope).id: _rulebook(clauses, vocabulary, heirs) for scope, clauses in by_scope.items()
    }
    return CompiledPolicy(version, vocabulary, rules, platform, overrides)


def _rulebook(
    clauses: Iterable[Clause], vocabulary: Vocabulary, heirs: Mapping[str, tuple[str, ...]]
) -> Rulebook:
    denies: dict[tuple[str, str, str], list[Clause]] = defaultdict(list)
    allows: dict[tuple[str, str, str], list[Clause]] = defaultdict(list)
    for clause in clauses:
        target = denies if clause.rule.effect == _DENY else allows
        for type_name, action in _targets(clause.rule, vocabulary):
            for role in heirs[clause.rule.role]:
                target[role, type_name, action].append(clause)
    return Rulebook(_frozen(denies), _frozen(allows))


def _targets(rule: Rule, vocabulary: Vocabulary) -> list[tuple[str, str]]:
    types = vocabulary.types if rule.type == _ANY else (rule.type,)
    return [
        (name, action)
        for name in types
        for action in vocabulary.types[name].actions
        if rule.action in (_ANY, action)
    ]


def _frozen(index: Mapping[tuple[str, str, str], list[Clause]]) -> Index:
    return MappingProxyType({key: tuple(clauses) for key, clauses in index.items()})
