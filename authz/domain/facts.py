"""The closed set of yes/no facts that a rule's condition may name, by name and bit.

A fact that cannot be established is no: missing data never satisfies a condition.
"""

from __future__ import annotations

from enum import IntFlag

from authz.domain.entities import ShareLevel

PURPOSE_AI_RESPONSE = "ai_response"
"""The one purpose beside plain use (the empty string) that the service knows."""


class Fact(IntFlag):
    """One bit each. The lower-case names are what a policy row says."""

    OWN = 1
    SHARED_VIEW = 2
    SHARED_EDIT = 4
    PUBLISHED = 8
    COURSE_VISIBLE = 16
    SESSION_VISIBLE = 32
    ATTENDING = 64
    WITHIN_EDIT_WINDOW = 128
    LOCKED = 256
    AI_ENABLED = 512
    FOR_AI_RESPONSE = 1024
    COURSE_ARCHIVED = 2048
    SESSION_LIVE = 4096
    SESSION_ENDED = 8192


# Plain integers: the arithmetic of an enum costs more than a whole decision.
OWN = Fact.OWN.value
SHARED_VIEW = Fact.SHARED_VIEW.value
SHARED_EDIT = Fact.SHARED_EDIT.value
PUBLISHED = Fact.PUBLISHED.value
COURSE_VISIBLE = Fact.COURSE_VISIBLE.value
SESSION_VISIBLE = Fact.SESSION_VISIBLE.value
ATTENDING = Fact.ATTENDING.value
WITHIN_EDIT_WINDOW = Fact.WITHIN_EDIT_WINDOW.value
LOCKED = Fact.LOCKED.value
AI_ENABLED = Fact.AI_ENABLED.value
FOR_AI_RESPONSE = Fact.FOR_AI_RESPONSE.value
COURSE_ARCHIVED = Fact.COURSE_ARCHIVED.value
SESSION_LIVE = Fact.SESSION_LIVE.value
SESSION_ENDED = Fact.SESSION_ENDED.value
SHARED = SHARED_VIEW | SHARED_EDIT

FACT_NAMES: dict[str, Fact] = {(fact.name or "").lower(): fact for fact in Fact}
"""Every fact by the name that policies use."""


def fact_names(mask: int) -> tuple[str, ...]:
    """The names of the facts in a mask, in the order of `Fact`."""
    return tuple(name for name, fact in FACT_NAMES.items() if mask & fact)


def share_facts(level: ShareLevel | None) -> int:
    """What a share settles. An editor is also a viewer."""
    if level is None:
        return 0
    return SHARED if level is ShareLevel.EDITOR else SHARED_VIEW
