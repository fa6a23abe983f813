"""What a decision needs of one resource for one subject, and the facts that follow from it."""

from __future__ import annotations

import msgspec

from authz.domain.effective_roles import earliest_after
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
from authz.domain.scope_context import ScopeContext, scope_context_of


class ResourceContext(msgspec.Struct, frozen=True, eq=False, gc=False):
    """A resource in its place, to one subject.

    `facts` are those that hold whatever the time, with PUBLISHED for what is published inside its
    window, whenever that is.
    """

    place: ScopeContext
    facts: int
    available_from: Instant | None = None
    available_until: Instant | None = None
    created_at: Instant | None = None


TIMED = PUBLISHED | WITHIN_EDIT_WINDOW
"""The facts that time moves."""

SCOPE_MISSING = ResourceContext(scope_context_of(None, None), 0)
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


def resource_context_of(resource: Resource, place: ScopeContext, subject: Subject) -> ResourceContext:
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
    return ResourceContext(
        place, facts, resource.available_from, resource.available_until, resource.created_at
    )


def facts_at(now: Instant, item: ResourceContext, required_facts: int) -> int:
    """The facts that hold at `now`; of those that time moves, only such as are asked for."""
    facts = item.facts
    if required_facts & PUBLISHED and facts & PUBLISHED:
        opens, closes = item.available_from, item.available_until
        if (opens is not None and now < opens) or (closes is not None and now >= closes):
            facts &= ~PUBLISHED
    created_at = item.created_at
    if (
        required_facts & WITHIN_EDIT_WINDOW
        and created_at is not None
        and created_at <= now < _edit_until(item)
    ):
        facts |= WITHIN_EDIT_WINDOW
    return facts


def next_fact_change_at(now: Instant, item: ResourceContext, required_facts: int) -> Instant | None:
    """The earliest later instant at which time alone changes one of `required_facts`."""
    next_change_at: Instant | None = None
    if required_facts & PUBLISHED and item.facts & PUBLISHED:
        next_change_at = earliest_after(now, item.available_from, item.available_until)
    if required_facts & WITHIN_EDIT_WINDOW and item.created_at is not None:
        next_change_at = earliest_after(now, next_change_at, item.created_at, _edit_until(item))
    return next_change_at


def _edit_until(item: ResourceContext) -> Instant:
    return (item.created_at or 0) + item.place.setting.edit_window_us
