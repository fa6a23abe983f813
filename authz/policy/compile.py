"""The rules as an immutable index, and the decision over it.

(roles, type, action) leads to clauses, each a condition as bit masks with the rule that it came from.
Compiling resolves inheritance, wildcards and course overrides, so a decision is a lookup and a few integer
operations, and costs the same however many courses have overrides.
"""

from __future__ import annotations

from collections import ChainMap, defaultdict
from collections.abc import Iterable, Mapping
from copy import copy
from functools import cache, partial
from types import MappingProxyType
from typing import TypeAlias

import msgspec

from authz.domain.cache import BoundedCache
from authz.domain.decisions import COURSE_TYPE, EDIT_POLICY, Reason, Rule, Verdict
from authz.domain.effective_roles import role_table
from authz.domain.ids import ScopeKind, course_scope, parse_scope
from authz.domain.trace import RuleTrace
from authz.domain.vocabulary import API_TYPE, GRANT_ROLES, Vocabulary
from authz.policy.condition import Condition, conjunction, parse_condition
from authz.policy.locks import Lock, cells_of
from authz.policy.rules import ANY, DENY, inheritors_of, targets_of

_MAX_COMPILED = 4096
"""Entries of a rulebook's cache. Only role sets that memberships give are compiled, so few are ever made."""


class Clause(msgspec.Struct, frozen=True):
    """One rule: it matches when its condition holds. `position` is its place in the policy, from 0."""

    condition: Condition
    rule: Rule
    position: int


Index: TypeAlias = Mapping[tuple[str, str, str], tuple[Clause, ...]]
"""(role, type, action) to clauses in the order of the file."""


class CompiledRules:
    """The rules for one set of roles and one action on one type.

    `denies` and `allows` are its clauses, each in the order of the policy. `required_facts` is the mask of
    the facts that they name, negated or not; no other fact changes its verdict.
    """

    __slots__ = ("_verdicts", "allows", "denies", "required_facts")

    def __init__(self, denies: Iterable[Clause], allows: Iterable[Clause]) -> None:
        self.denies = tuple(sorted(denies, key=lambda clause: clause.position))
        self.allows = tuple(sorted(allows, key=lambda clause: clause.position))
        clauses = (*self.denies, *self.allows)
        self.required_facts = conjunction(*(clause.condition for clause in clauses)).named
        # At most one for each combination of the required facts.
        self._verdicts: dict[int, Verdict] = {}

    @property
    def conditions(self) -> tuple[frozenset[Condition], frozenset[Condition]]:
        """Those of the denies and of the allows. Rules with equal conditions decide alike."""
        denies, allows = (frozenset(c.condition for c in clauses) for clauses in (self.denies, self.allows))
        return denies, allows

    def verdict(self, facts: int) -> Verdict:
        """Any matching deny wins, then any matching allow; of several the first in the file is named."""
        facts &= self.required_facts
        known = self._verdicts.get(facts)
        if known is None:
            known = self._verdicts[facts] = self._decide(facts)
        return known

    def may_allow(self, certain: int, possible: int) -> bool:
        """Whether they allow with some facts among `possible` that have all of `certain` among them.

        May be true where they do not. Never false where they do.
        """
        return any(
            not (c.condition.required & ~possible or c.condition.forbidden & certain) for c in self.allows
        ) and not any(
            not (c.condition.required & ~certain or c.condition.forbidden & possible) for c in self.denies
        )

    def trace(self, facts: int) -> tuple[RuleTrace, ...]:
        """Every rule with what of its condition is not met: denies first, then allows."""
        clauses = (*self.denies, *self.allows)
        return tuple([RuleTrace(clause.rule, clause.condition.unmet(facts)) for clause in clauses])

    def _decide(self, facts: int) -> Verdict:
        for clause in self.denies:
            if clause.condition.holds(facts):
                return Verdict(False, Reason.EXPLICIT_DENY, clause.rule)
        for clause in self.allows:
            if clause.condition.holds(facts):
                return Verdict(True, Reason.ROLE_GRANT, clause.rule)
        if not self.allows:
            return Verdict(False, Reason.NO_RULE)
        # The one that misses the fewest facts; of those the first in the file.
        nearest = min(self.allows, key=lambda c: (c.condition.unmet(facts).bit_count(), c.position))
        return Verdict(False, Reason.CONDITION_NOT_MET, nearest.rule, nearest.condition.unmet(facts))


NO_RULES = CompiledRules((), ())
"""Those of a subject without a role."""


class Rulebook:
    """The clauses of one scope, and what was compiled from them and from those of the platform."""

    __slots__ = ("allows", "compiled", "denies", "permissions")

    def __init__(self, denies: Index, allows: Index) -> None:
        self.denies = denies
        self.allows = allows
        self.compiled = BoundedCache[tuple[frozenset[str], str, str], CompiledRules](_MAX_COMPILED)
        self.permissions = BoundedCache[frozenset[str], frozenset[str]](_MAX_COMPILED)


class CompiledPolicy:
    """One version of the policy. Immutable: a new version is another object."""

    # Checks in thousands of courses with a policy of their own read as many of these.
    __slots__ = (
        "_overrides",
        "_own_book",
        "_own_course",
        "_rules",
        "inherited",
        "locked",
        "locks",
        "own_cells",
        "own_rules",
        "platform",
        "role_table",
        "version",
        "vocabulary",
    )

    def __init__(
        self,
        version: str,
        vocabulary: Vocabulary,
        inherited: Mapping[str, frozenset[str]],
        rules: tuple[Rule, ...],
        locks: tuple[Lock, ...],
    ) -> None:
        """`inherited` gives for each role all roles whose rules it has, itself among them; no course's own
        policy may have rules for what `locks` name."""
        self.version = version
        by_scope = _rulebooks(rules, vocabulary, inherited)
        self.platform = by_scope.pop(ANY)
        self._overrides = {parse_scope(scope).id: book for scope, book in by_scope.items()}
        self._own_course: str | None = None
        self._own_book: Rulebook | None = None
        self.vocabulary = msgspec.structs.replace(
            vocabulary,
            administrators=_holders(self.platform, vocabulary, COURSE_TYPE, EDIT_POLICY),
            granters=_holders(self.platform, vocabulary, API_TYPE, GRANT_ROLES),
        )
        self.inherited = MappingProxyType(dict(inherited))
        self.role_table = role_table(tuple(vocabulary.roles.values()))
        self.own_rules: tuple[Rule, ...] = ()
        """Those of the course's own policy, after `with_override`."""
        self.own_cells = 0
        """How many cells (role, type, action) they cover."""
        self._rules = rules
        self.locks = locks
        self.locked = MappingProxyType(
            {
                cell: lock
                for lock in reversed(locks)
                for cell in cells_of(lock, vocabulary, inheritors_of(lock.role, inherited))
            }
        )
        """What is locked, (role, type, action), with the first lock that says so."""

    @property
    def overrides(self) -> Mapping[str, Rulebook]:
        """The rules in courses with rows of their own, by the id of the course."""
        if self._own_course is None or self._own_book is None:
            return MappingProxyType(self._overrides)
        return ChainMap({self._own_course: self._own_book}, self._overrides)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """All, in order: those of the platform's files, then `own_rules`."""
        return self._rules + self.own_rules

    def with_override(self, course_id: str, rules: tuple[Rule, ...]) -> CompiledPolicy:
        """The same policy with more rules for one course: behind its own, as if they were its last rows."""
        clauses = _clauses_of(rules, first=len(self._rules) + len(self.own_rules))
        book = _rulebook(clauses, self.vocabulary, self.inherited)
        made = copy(self)
        made.own_rules = self.own_rules + rules
        made.own_cells = self.own_cells + len(book.denies) + len(book.allows)
        before = self._override_in(course_id)
        if before is not None:
            book = Rulebook(_joined(before.denies, book.denies), _joined(before.allows, book.allows))
        # The platform's others are shared: it may have rows for thousands of courses.
        if self._own_course not in (None, course_id):
            made._overrides = dict(self.overrides)
        made._own_course, made._own_book = course_id, book
        return made

    def rules_for(
        self, roles: frozenset[str], course_id: str | None, type_name: str, action: str
    ) -> CompiledRules:
        """The platform's rules together with the overrides of the course, if it has any.

        Without roles none matches.
        """
        override = self._override_in(course_id)
        book = self.platform if override is None else override
        key = (roles, type_name, action)
        rules = book.compiled.get(key)
        if rules is None:
            rules = book.compiled[key] = self._compile(key, override)
        return rules

    def permissions_of(self, roles: frozenset[str]) -> frozenset[str]:
        """The actions of the type `api` that a caller with these roles may perform."""
        known = self.platform.permissions
        found = known.get(roles)
        if found is None:
            declared = self.vocabulary.types.get(API_TYPE)
            actions = () if declared is None else declared.actions
            rules = {action: self.rules_for(roles, None, API_TYPE, action) for action in actions}
            found = frozenset(action for action, each in rules.items() if each.verdict(0).allowed)
            known[roles] = found
        return found

    def allows_of(self, role: str, type_name: str, action: str) -> tuple[Rule, ...]:
        """The platform's allow rules that a role has, inherited ones among them, in order."""
        return tuple(clause.rule for clause in self.platform.allows.get((role, type_name, action), ()))

    def denies_by_name(self, role: str, course_id: str | None) -> bool:
        """Whether a deny names a role, one that it inherits, or one that it becomes, in a course, or anywhere
        without one. Who gets the role then loses what another role gives."""
        here = (ANY, "" if course_id is None else str(course_scope(course_id)))
        declared = self.vocabulary.roles.get(role)
        forms = () if declared is None else (role, declared.becomes)
        bases = frozenset[str]().union(*(self.inherited.get(each, ()) for each in forms))
        return any(
            rule.effect == DENY and rule.role in bases and (course_id is None or rule.scope in here)
            for rule in self.rules
        )

    def clauses(
        self, course_id: str | None, role: str, type_name: str, action: str
    ) -> tuple[tuple[Clause, ...], tuple[Clause, ...]]:
        """(denies, allows) of one role in a course, or without a course, or in one without overrides."""
        key = (role, type_name, action)
        denies, allows = self.platform.denies.get(key, ()), self.platform.allows.get(key, ())
        override = self._override_in(course_id)
        if override is None:
            return denies, allows
        return (*denies, *override.denies.get(key, ())), (*allows, *override.allows.get(key, ()))

    def _override_in(self, course_id: str | None) -> Rulebook | None:
        """The rules in a course with rows of its own; None for another, and without a course."""
        if course_id == self._own_course:
            return self._own_book
        return None if course_id is None else self._overrides.get(course_id)

    def _compile(self, key: tuple[frozenset[str], str, str], override: Rulebook | None) -> CompiledRules:
        roles, type_name, action = key
        if override is not None:
            indexes = override.denies, override.allows
            if not any((role, type_name, action) in index for role in roles for index in indexes):
                # So all courses share what they do not change.
                return self.rules_for(roles, None, type_name, action)
        books = (self.platform,) if override is None else (self.platform, override)

        def clauses(indexes: Iterable[Index]) -> dict[int, Clause]:
            """By position, so that a clause that several roles have counts once."""
            return {
                clause.position: clause
                for index in indexes
                for role in roles
                for clause in index.get((role, type_name, action), ())
            }

        denies = clauses(book.denies for book in books)
        return CompiledRules(denies.values(), clauses(book.allows for book in books).values())


def _clauses_of(rules: Iterable[Rule], first: int = 0) -> list[Clause]:
    return [
        Clause(parse_condition(rule.condition), rule, position) for position, rule in enumerate(rules, first)
    ]


def _holders(platform: Rulebook, vocabulary: Vocabulary, type_name: str, action: str) -> frozenset[str]:
    """The roles on the platform that may perform an action there: by a rule without a condition."""
    cells = {
        role.name: (role.name, type_name, action)
        for role in vocabulary.roles.values()
        if role.scope_kind is ScopeKind.PLATFORM
    }
    return frozenset(
        role
        for role, cell in cells.items()
        if CompiledRules(platform.denies.get(cell, ()), platform.allows.get(cell, ())).verdict(0).allowed
    )


def _rulebooks(
    rules: Iterable[Rule], vocabulary: Vocabulary, inherited: Mapping[str, frozenset[str]]
) -> dict[str, Rulebook]:
    """By scope, also for the platform if no rule is of it."""
    by_scope: dict[str, list[Clause]] = defaultdict(list, {ANY: []})
    for clause in _clauses_of(rules):
        by_scope[clause.rule.scope].append(clause)
    return {scope: _rulebook(clauses, vocabulary, inherited) for scope, clauses in by_scope.items()}


def _rulebook(
    clauses: Iterable[Clause], vocabulary: Vocabulary, inherited: Mapping[str, frozenset[str]]
) -> Rulebook:
    denies: dict[tuple[str, str, str], list[Clause]] = defaultdict(list)
    allows: dict[tuple[str, str, str], list[Clause]] = defaultdict(list)
    # Many rules name the same role, or the same type and action.
    inheritors = cache(partial(inheritors_of, inherited=inherited))
    targets = cache(lambda type_name, action: tuple(targets_of(type_name, action, vocabulary)))
    for clause in clauses:
        rule = clause.rule
        index = denies if rule.effect == DENY else allows
        for type_name, action in targets(rule.type, rule.action):
            for role in inheritors(rule.role):
                index[role, type_name, action].append(clause)
    return Rulebook(_frozen(denies), _frozen(allows))


def _frozen(index: Mapping[tuple[str, str, str], list[Clause]]) -> Index:
    return MappingProxyType({key: tuple(clauses) for key, clauses in index.items()})


def _joined(first: Index, second: Index) -> Index:
    return MappingProxyType(
        {key: first.get(key, ()) + second.get(key, ()) for key in dict.fromkeys([*first, *second])}
    )
