"""Which actions on which types two policies decide differently, for what somebody holds."""

from __future__ import annotations

from collections.abc import Collection
from itertools import chain

from authz.domain.cache import BoundedCache
from authz.domain.effective_roles import EffectiveRoles
from authz.domain.facts import ALL_FACTS, FOR_AI_RESPONSE, OWN, PURPOSE_AI_RESPONSE, SHARED
from authz.domain.impact import AccessKind
from authz.domain.vocabulary import API_TYPE
from authz.engine.check import opens
from authz.policy.compile import CompiledPolicy, CompiledRules
from authz.policy.condition import conjunction
from authz.policy.diff import NOTHING, beyond

_PURPOSES = (("", 0), (PURPOSE_AI_RESPONSE, FOR_AI_RESPONSE))
_MAX_CACHED = 4096


class DifferingCell:
    """An action on a type that may change for the holders of some roles.

    `before` and `after` are the rules for their roles; None where the roles open nothing, or the policy does
    not declare the action. `depends_on_subject` is false if it matters neither who owns the resource nor
    with whom it is shared.
    """

    def __init__(
        self,
        type_name: str,
        action: str,
        before: CompiledRules | None,
        after: CompiledRules | None,
        *,
        depends_on_subject: bool,
    ) -> None:
        self.type_name, self.action = type_name, action
        self.before, self.after = before, after
        self.depends_on_subject = depends_on_subject
        self._before_facts = 0 if before is None else before.required_facts
        self._after_facts = 0 if after is None else after.required_facts
        self._found: dict[tuple[int, int], tuple[AccessKind, ...]] = {}

    def kinds(self, before_facts: int, after_facts: int) -> tuple[AccessKind, ...]:
        """What changes where these facts hold, under either policy; the purpose's is not among them."""
        key = (before_facts & self._before_facts, after_facts & self._after_facts)
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = tuple(self._compare(*key))
        return found

    def _compare(self, before_facts: int, after_facts: int) -> list[AccessKind]:
        gains: dict[int, list[str]] = {}
        for purpose, facts in _PURPOSES if self.type_name != API_TYPE else _PURPOSES[:1]:  # a call has none
            was = self.before is not None and self.before.verdict(before_facts | facts).allowed
            will = self.after is not None and self.after.verdict(after_facts | facts).allowed
            if was != will:
                gains.setdefault(will, []).append(purpose)
        return [AccessKind(self.type_name, self.action, tuple(p), bool(g)) for g, p in gains.items()]


class CellComparison:
    """Compares two policies for roles that are held together. Caches the results.

    `elsewhere` compares the same policies of the platform without that of a course: many courses share
    what it finds of the actions that no rule of their own is about.
    """

    def __init__(
        self, before: CompiledPolicy, after: CompiledPolicy, elsewhere: CellComparison | None = None
    ) -> None:
        self._before, self._after = before, after
        self._elsewhere = elsewhere or self
        self._pairs: list[tuple[str, str]] = (
            list(dict.fromkeys([*before.vocabulary.actions, *after.vocabulary.actions]))
            if elsewhere is None
            else elsewhere._pairs
        )
        self._cache = BoundedCache[object, tuple[DifferingCell, ...]](_MAX_CACHED)
        self._named: dict[str, int] = {}

    def facts_named(self, type_name: str, course_id: str | None) -> int:
        """The facts that may decide about a type under either policy: no rule about it names another."""
        if self._is_overridden(course_id):
            return ALL_FACTS
        found = self._named.get(type_name)
        if found is None:
            books = (self._before.platform, self._after.platform)
            indexes = (index for book in books for index in (book.denies, book.allows))
            clauses = chain.from_iterable(
                some for index in indexes for (_, name, _), some in index.items() if name == type_name
            )
            found = self._named[type_name] = conjunction(*(each.condition for each in clauses)).named
        return found

    def cells(
        self, before: EffectiveRoles, after: EffectiveRoles, course_id: str | None
    ) -> tuple[DifferingCell, ...]:
        """Every cell of which some facts are decided differently, for who holds these roles under either
        policy. None is missing; of some no resource has such facts."""
        key = (_opening(before), _opening(after), course_id if self._is_overridden(course_id) else None)
        found = self._cache.get(key)
        if found is None:
            known: dict[tuple[str, str], DifferingCell | None] = {}
            own: Collection[tuple[str, str]] = self._pairs
            if key[2] is not None:
                own = self._overridden_in(key[2])
                common = self._elsewhere.cells(before, after, None)
                known = {(cell.type_name, cell.action): cell for cell in common}
            for pair in own:
                known[pair] = self._compared(pair, before, after, course_id)
            found = self._cache[key] = tuple(cell for pair in self._pairs if (cell := known.get(pair)))
        return found

    def _overridden_in(self, course_id: str) -> set[tuple[str, str]]:
        """The types and actions that the rules of a course are about, under either policy."""
        books = (policy.overrides.get(course_id) for policy in (self._before, self._after))
        indexes = (index for book in books if book is not None for index in (book.denies, book.allows))
        return {(type_name, action) for index in indexes for _, type_name, action in index}

    def _is_overridden(self, course_id: str | None) -> bool:
        return course_id in self._before.overrides or course_id in self._after.overrides

    def _compared(
        self, pair: tuple[str, str], before: EffectiveRoles, after: EffectiveRoles, course_id: str | None
    ) -> DifferingCell | None:
        old = _rules(self._before, before, course_id, pair)
        new = _rules(self._after, after, course_id, pair)
        was, will = (NOTHING if rules is None else rules.conditions for rules in (old, new))
        if (before.in_course, before.in_session) == (after.in_course, after.in_session):
            differing = [*beyond(was, will), *beyond(will, was)] if was != will else []
            named = conjunction(*differing).named
        else:
            # The subject may attend under one policy only: each then sees other facts.
            differing = [*was[1], *will[1]]
            named = ALL_FACTS
        if not differing:
            return None
        return DifferingCell(*pair, old, new, depends_on_subject=bool(named & (OWN | SHARED)))


def _opening(held: EffectiveRoles) -> tuple[frozenset[str], bool, bool]:
    """All that decides which rules apply, and whether a session is attended."""
    return held.roles, held.in_course, held.in_session


def _rules(
    policy: CompiledPolicy, held: EffectiveRoles, course_id: str | None, pair: tuple[str, str]
) -> CompiledRules | None:
    type_name, action = pair
    declared = policy.vocabulary.types.get(type_name)
    if declared is None or action not in declared.actions or not opens(held, type_name):
        return None
    return policy.rules_for(held.roles, course_id, type_name, action)
