"""The rules as an immutable index, and the decision over it.

(role, type, action) leads to clauses, each a bit mask of facts. Inheritance, wildcards and course
overrides are resolved when the index is made; a decision is a few look-ups and integer operations,
and costs the same however many courses have overrides.
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
from authz.domain.ids import Scope
from authz.domain.vocabulary import Vocabulary

_ANY = "*"
_DENY = "deny"


class Clause(msgspec.Struct, frozen=True):
    """One rule: it matches when every fact of `mask` holds. `place` orders clauses as in the file."""

    mask: int
    rule: Rule
    place: int


Index: TypeAlias = Mapping[tuple[str, str, str], tuple[Clause, ...]]
"""(role, type, action) to clauses in the order of the file."""


class Rulebook(msgspec.Struct, frozen=True):
    """The clauses of one scope, with the facts that they ask for by (type, action)."""

    denies: Index
    allows: Index
    asked: Mapping[tuple[str, str], int]


_EMPTY = Rulebook({}, {}, {})


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
        self.version = version
        self.vocabulary = vocabulary
        self.rules = rules
        self._platform = platform
        self._overrides = MappingProxyType(dict(overrides))

    def decide(self, roles: frozenset[str], scope: Scope, type_name: str, action: str, facts: int) -> Verdict:
        """What the rules say. `scope` is the one whose overrides apply, beside the platform's rules.

        Any matching deny wins, then any matching allow; of several the first in the file is named.
        Without roles nothing matches.
        """
        override = self._overrides.get(str(scope)) if self._overrides else None
        books = (self._platform,) if override is None else (self._platform, override)
        deny = _first_match([book.denies for book in books], roles, type_name, action, facts)
        if deny is not None:
            return Verdict(False, Reason.EXPLICIT_DENY, deny.rule)
        allows = [book.allows for book in books]
        allow = _first_match(allows, roles, type_name, action, facts)
        if allow is not None:
            return Verdict(True, Reason.ROLE_GRANT, allow.rule)
        nearest = _nearest(allows, roles, type_name, action, facts)
        if nearest is None:
            return Verdict(False, Reason.NO_RULE)
        return Verdict(False, Reason.CONDITION_NOT_MET, nearest.rule, nearest.mask & ~facts)

    def allows_of(self, role: str, type_name: str, action: str) -> tuple[Rule, ...]:
        """The platform's allow rules that a role has, inherited ones among them, in order."""
        return tuple(clause.rule for clause in self._platform.allows.get((role, type_name, action), ()))

    def asked(self, scope: Scope, type_name: str, action: str) -> int:
        """The mask of all facts that any rule asks for, whatever the role."""
        mask = self._platform.asked.get((type_name, action), 0)
        override = self._overrides.get(str(scope)) if self._overrides else None
        return mask if override is None else mask | override.asked.get((type_name, action), 0)


def _first_match(
    indexes: list[Index], roles: frozenset[str], type_name: str, action: str, facts: int
) -> Clause | None:
    found: Clause | None = None
    for index in indexes:
        for role in roles:
            for clause in index.get((role, type_name, action), ()):
                if clause.mask & facts == clause.mask:
                    if found is None or clause.place < found.place:
                        found = clause
                    break
    return found


def _nearest(
    indexes: list[Index], roles: frozenset[str], type_name: str, action: str, facts: int
) -> Clause | None:
    """The clause that misses the fewest facts; of those the first in the file."""
    candidates = (
        clause for index in indexes for role in roles for clause in index.get((role, type_name, action), ())
    )
    return min(candidates, key=lambda c: ((c.mask & ~facts).bit_count(), c.place), default=None)


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
    books = {scope: _rulebook(clauses, vocabulary, heirs) for scope, clauses in by_scope.items()}
    return CompiledPolicy(version, vocabulary, rules, books.pop(_ANY, _EMPTY), books)


def _rulebook(
    clauses: Iterable[Clause], vocabulary: Vocabulary, heirs: Mapping[str, tuple[str, ...]]
) -> Rulebook:
    denies: dict[tuple[str, str, str], list[Clause]] = defaultdict(list)
    allows: dict[tuple[str, str, str], list[Clause]] = defaultdict(list)
    asked: dict[tuple[str, str], int] = defaultdict(int)
    for clause in clauses:
        target = denies if clause.rule.effect == _DENY else allows
        for type_name, action in _targets(clause.rule, vocabulary):
            asked[type_name, action] |= clause.mask
            for role in heirs[clause.rule.role]:
                target[role, type_name, action].append(clause)
    return Rulebook(_frozen(denies), _frozen(allows), MappingProxyType(dict(asked)))


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
