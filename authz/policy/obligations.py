"""What must be shown so that an invariant holds: for each allow row, that it never decides where it must not.

It is enough to look at single rows and at sets of at most two roles, for all sets of roles:

- A deny is absolute, and more roles only add denies. So a subject that a row of role r allows is also
  allowed with r alone, unless r alone cannot have the same facts. That is so for a role on the platform,
  which alone opens no content and attends nothing: it is looked at with each role of a course or a session,
  too. So are two such roles.
- An allow row has no negated facts, so gaining a role can only add allow rows. It takes an access away only
  by a deny row: one that names the gained role, which is exempt, or one of a role held before whose condition
  needs `attending`, the one fact that a role establishes. So it is enough to look at each pair of an allow
  row and such a deny row.

The prover discharges obligations, and the checker of certificates counts on the same ones: this module and
`situations` are what both trust. Tests hold them to every set of roles and every combination of facts.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from authz.domain.decisions import Rule
from authz.domain.facts import ATTENDING
from authz.domain.ids import ScopeKind
from authz.policy.compile import Clause, CompiledPolicy
from authz.policy.condition import Condition, conjunction
from authz.policy.invariants import Gaining, Invariant, Never
from authz.policy.rules import ANY
from authz.policy.situations import Situation, situations_of

_NOT_ATTENDING = Condition(forbidden=ATTENDING)


class Obligation(msgspec.Struct, frozen=True):
    """There must be no facts that agree with `start` and with which none of the denies holds.

    With such facts, `rule` would decide for a subject with exactly `roles` in the situation, in the course
    `course_id` (None: in any course without overrides, or in none).
    """

    invariant: Invariant
    course_id: str | None
    roles: tuple[str, ...]
    type_name: str
    action: str
    situation: Situation
    rule: Rule
    start: Condition
    denies: tuple[Condition, ...]
    gained: str | None = None
    """For an invariant about gaining a role: one with which the subject loses the access."""


def obligations(
    policy: CompiledPolicy, invariants: Sequence[Invariant], courses: Iterable[str] | None = None
) -> Iterator[Obligation]:
    """All obligations of the platform's rules, then those that each course's override adds; with `courses`,
    only those that the overrides of these courses add."""
    books = [_Book(policy, None)] if courses is None else []
    books += [_Book(policy, course_id) for course_id in (policy.overrides if courses is None else courses)]
    by_cell: dict[tuple[str, str], list[Never]] = defaultdict(list)
    for invariant in invariants:
        if isinstance(invariant, Never):
            for cell in invariant.cells:
                by_cell[cell].append(invariant)
    for book in books:
        yield from _never(book, by_cell)
        for invariant in invariants:
            if isinstance(invariant, Gaining):
                yield from _gaining(book, invariant)


class _Book:
    """The rules of the platform, or those of the platform and of one course's override."""

    def __init__(self, policy: CompiledPolicy, course_id: str | None) -> None:
        self.policy, self.course_id = policy, course_id
        self.roles = policy.vocabulary.roles
        self.own = policy.platform if course_id is None else policy.overrides[course_id]

    def situations(self, type_name: str, action: str) -> list[Situation]:
        """Those in which the rules are consulted: an override's only in its course."""
        found = situations_of(type_name, action)
        return [s for s in found if self.course_id is None or ScopeKind.COURSE in s.kinds]

    def denies(self, roles: Sequence[str], type_name: str, action: str) -> tuple[Condition, ...]:
        """The conditions of every deny row of the roles, each once."""
        rows = (self.policy.clauses(self.course_id, role, type_name, action)[0] for role in roles)
        return tuple(dict.fromkeys(clause.condition for clauses in rows for clause in clauses))

    def sets_with(
        self, names: tuple[str, ...], situation: Situation
    ) -> Iterator[tuple[tuple[str, ...], Condition]]:
        """The smallest sets of roles with these that somebody can hold, for all facts that go with any; each
        with what holds and what does not for who holds it."""
        sets = [names]
        if all(self.roles[name].scope_kind is ScopeKind.PLATFORM for name in names):
            others = (role for role in self.roles.values() if role.scope_kind is not ScopeKind.PLATFORM)
            sets += [(*names, other.name) for other in others]
        for held in sets:
            demands = situation.demands([self.roles[name] for name in held])
            if demands is not None:
                yield held, demands


def _never(book: _Book, by_cell: Mapping[tuple[str, str], Sequence[Never]]) -> Iterator[Obligation]:
    for (role, type_name, action), clauses in book.own.allows.items():
        invariants = [each for each in by_cell.get((type_name, action), ()) if role in each.roles]
        if not invariants:
            continue
        for situation in book.situations(type_name, action):
            for held, demands in book.sets_with((role,), situation):
                denies = book.denies(held, type_name, action)
                for clause in clauses:
                    for invariant in invariants:
                        start = conjunction(demands, invariant.when, clause.condition)
                        yield Obligation(
                            invariant, book.course_id, held, type_name, action, situation, clause.rule,
                            start, denies,
                        )  # fmt: skip


def _gaining(book: _Book, invariant: Gaining) -> Iterator[Obligation]:
    for (role, type_name, action), deny, allows in _attending_denies(book, invariant):
        for situation in book.situations(type_name, action):
            found = (
                (held, demands, clauses)
                for allower, clauses in allows.items()
                for held, demands in book.sets_with(tuple(dict.fromkeys((allower, role))), situation)
            )
            for held, demands, clauses in found:
                gained = _gainable(book, held, situation, (type_name, action))
                if demands.required & ATTENDING or gained is None:
                    continue
                absent = Condition(deny.condition.required & ~ATTENDING, deny.condition.forbidden)
                denies = book.denies(held, type_name, action)
                for clause in clauses:
                    start = conjunction(demands, _NOT_ATTENDING, absent, clause.condition)
                    yield Obligation(
                        invariant, book.course_id, held, type_name, action, situation, deny.rule,
                        start, denies, gained,
                    )  # fmt: skip


def _attending_denies(
    book: _Book, invariant: Gaining
) -> Iterator[tuple[tuple[str, str, str], Clause, dict[str, tuple[Clause, ...]]]]:
    """Each deny that needs `attending`, with the allows of each role on the same type and action.

    For an override, the pairs in which one of the two is its own.
    """
    indexes = (
        [book.own.denies] if book.course_id is None else [book.own.denies, _platform_denies_for_allows(book)]
    )
    for index in indexes:
        for (role, *cell), denies in index.items():
            needing = [deny for deny in denies if deny.condition.required & ATTENDING]
            if not needing or tuple(cell) not in invariant.cells:
                continue
            type_name, action = cell
            allows = {
                other: book.policy.clauses(book.course_id, other, type_name, action)[1]
                if index is book.own.denies
                else book.own.allows.get((other, type_name, action), ())
                for other in book.roles
            }
            for deny in needing:
                yield (role, type_name, action), deny, allows


def _platform_denies_for_allows(book: _Book) -> Mapping[tuple[str, str, str], tuple[Clause, ...]]:
    """The platform's denies for every type and action that an allow of the override is about."""
    cells = dict.fromkeys((type_name, action) for _, type_name, action in book.own.allows)
    keys = ((role, *cell) for cell in cells for role in book.roles)
    return {key: found for key in keys if (found := book.policy.platform.denies.get(key))}


def _gainable(book: _Book, held: Sequence[str], situation: Situation, cell: tuple[str, str]) -> str | None:
    """A role that no deny row of the cell names, and with which the subject attends; None without one."""
    kinds = {ScopeKind.SESSION}
    if all(book.roles[name].scope_kind is ScopeKind.PLATFORM for name in held):
        kinds.add(ScopeKind.COURSE)
    if ScopeKind.SESSION not in situation.kinds:
        return None
    for role in book.roles.values():
        denies, _ = book.policy.clauses(book.course_id, role.name, *cell)
        if role.scope_kind in kinds & situation.kinds and all(deny.rule.role == ANY for deny in denies):
            return role.name
    return None
