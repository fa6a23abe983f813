"""The condition of a rule: facts that must hold, and in a deny row also facts that must not."""

from __future__ import annotations

import msgspec

from authz.domain.cache import cached_if_short
from authz.domain.facts import FACTS_BY_NAME, fact_names, mask_of

NOT = "!"
_AND = "&"


class Condition(msgspec.Struct, frozen=True, order=True):
    """It holds when every fact of `required` holds and no fact of `forbidden` does. The two are disjoint."""

    required: int = 0
    forbidden: int = 0

    @property
    def named(self) -> int:
        """The facts that it names. No other fact changes whether it holds."""
        return self.required | self.forbidden

    def holds(self, facts: int) -> bool:
        """Whether it holds for these facts. A fact that could not be established is not among them."""
        return facts & self.named == self.required

    def unmet(self, facts: int) -> int:
        """Its facts that are not as it needs them."""
        return (facts ^ self.required) & self.named

    def follows_from(self, known: Condition) -> bool:
        """Whether `known` names all that it names, in the same way: then it holds whenever `known` does."""
        return not (self.required & ~known.required or self.forbidden & ~known.forbidden)

    def contradicts(self, other: Condition) -> bool:
        """Whether one requires a fact that the other forbids."""
        return bool(self.required & other.forbidden or self.forbidden & other.required)

    def __str__(self) -> str:
        terms = (*fact_names(self.required), *(NOT + name for name in fact_names(self.forbidden)))
        return f" {_AND} ".join(terms)


def conjunction(*conditions: Condition) -> Condition:
    """The condition that holds when all of them do. Not disjoint if they contradict each other."""
    required = forbidden = 0
    for condition in conditions:
        required |= condition.required
        forbidden |= condition.forbidden
    return Condition(required, forbidden)


@cached_if_short
def condition_terms(text: str) -> tuple[tuple[str, bool], ...]:
    """The names in the text of a condition, each with whether it is negated.

    As written: a name may be unknown, or empty.
    """
    if not text:
        return ()
    terms = (part.strip() for part in text.split(_AND))
    return tuple((term.removeprefix(NOT).strip(), term.startswith(NOT)) for term in terms)


@cached_if_short
def parse_condition(text: str) -> Condition:
    """A condition whose names are known."""
    terms = condition_terms(text)
    required = mask_of(FACTS_BY_NAME[name] for name, negated in terms if not negated)
    return Condition(required, mask_of(FACTS_BY_NAME[name] for name, negated in terms if negated))
