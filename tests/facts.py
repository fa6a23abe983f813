"""Facts by name, for tests."""

from __future__ import annotations

from authz.domain.facts import FACTS, FACTS_BY_NAME

BITS = [fact.bit for fact in FACTS]


def bits(*names: str) -> int:
    """The mask of these facts."""
    return sum(FACTS_BY_NAME[name].bit for name in names)
