"""What a decision needs of one resource for one subject, and the facts that follow from it."""

from __future__ import annotations

import msgspec

from authz.domain.entities import Resource, Visibility
from authz.domain.facts import (
    AI_ENABLED,
    COURSE_VISIBLE,
    LOCKED,
    OWN,
    PUBLISHED,
    SESSION_VISIBLE,
    WITHIN_EDIT_WINDOW,
)
from authz.domain.ids import Subject
from authz.domain.instants import Instant
from authz.domain.places import Place, place_of
from authz.domain.standing import earliest_after


class Item(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A resource in its place, to one subject.

    `facts` are those that hold whatever the time, with PUBLISHED for what is published inside its
    window, whenever that is.
    """

    place: Place
    facts: int
    available_from: Instant | None = None
    available_until: Instant | None = None
    created_at: Instant | None = None


TIMED = PUBLISHED | WITHIN_EDIT_WINDOW
"""The facts that time moves."""

MISPLACED = Item(place_of(None, None), 0)
"""What stands for a registered resource whose scope is not there: nothing can be said of it."""


def lasting_facts(*, visibility: Visibility, published: bool, locked: bool, ai_allowed: bool) -> int:
    """What the attributes of a resource settle in a place that rules none of it out."""
    facts = 0
    if visibility is Visibility.COURSE:
        facts |= COURSE_VISIBLE
    elif visibility is Visibility.SESSION:
        facts |= SESSION_VISIBLE
    if published:
        facts |= PUBLISHED
    if locked:
        facts |= LOCKED
    if ai_allowed:
        facts |= AI_ENABLED
    return facts


def item_of(resource: Resource, place: Place, subject: Subject) -> Item:
    """The item of a resource, for whoever has the resource itself."""
    facts = lasting_facts(
        visibility=resource.visibility,
        published=resource.published,
        locked=resource.locked,
        ai_allowed=resource.ai_allowed,
    )
    facts = facts & place.setting.possible | place.setting.facts
    if resource.owner is not None and resource.owner == subject:
        facts |= OWN
    return Item(place, facts, resource.available_from, resource.available_until, resource.created_at)


def facts_at(now: Instant, item: Item, asked: int) -> int:
    """The facts that hold at `now`; of those that time moves, only such as are asked for."""
    facts = item.facts
    if asked & PUBLISHED and facts & PUBLISHED:
        opens, closes = item.available_from, item.available_until
        if (opens is not None and now < opens) or (closes is not None and now >= closes):
            facts &= ~PUBLISHED
    created_at = item.created_at
    if asked & WITHIN_EDIT_WINDOW and created_at is not None and created_at <= now < _edit_until(item):
        facts |= WITHIN_EDIT_WINDOW
    return facts


def fact_edge(now: Instant, item: Item, asked: int) -> Instant | None:
    """The earliest later instant at which time alone changes one of the facts in the mask `asked`."""
    edge: Instant | None = None
    if asked & PUBLISHED and item.facts & PUBLISHED:
        edge = earliest_after(now, item.available_from, item.available_until)
    if asked & WITHIN_EDIT_WINDOW and item.created_at is not None:
        edge = earliest_after(now, edge, item.created_at, _edit_until(item))
    return edge


def _edit_until(item: Item) -> Instant:
    return (item.created_at or 0) + item.place.setting.edit_window_us
