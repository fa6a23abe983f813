"""The closed set of yes/no facts that a rule's condition may name, each defined once, as data.

A fact holds when every part of its definition does: what the resource says, what the resource's course and
session say, the share, the roles, the request, and the time. A part that cannot be established does not hold:
missing data never satisfies a condition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum
from functools import reduce
from operator import or_
from typing import TypeAlias

import msgspec

from authz.domain.entities import Course, CourseState, Resource, Session, SessionState, ShareLevel, Visibility
from authz.domain.ids import ScopeKind, Subject
from authz.domain.instants import US_PER_S, Instant
from authz.domain.predicates import Comparison, Operator, Predicate, ResourceField, all_of, any_of

CREATED_AHEAD_US = 5 * US_PER_S
"""A resource created up to so much later than now counts as created now: clocks differ."""
PURPOSE_AI_RESPONSE = "ai_response"
PURPOSES = ("", PURPOSE_AI_RESPONSE)
"""The purposes that the service knows: plain use, and an AI response. Every other one is denied."""


class Times(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What the timed facts are computed from."""

    available_from: Instant | None = None
    available_until: Instant | None = None
    created_at: Instant | None = None


Window: TypeAlias = tuple[Instant | None, Instant | None]
"""From (inclusive) and until (exclusive) when a fact may hold; None for unbounded."""


class ComparedValues(msgspec.Struct, frozen=True):
    """The values to compare fields with: the asking subject, and the edit window of the course."""

    subject: Subject
    edit_window_us: int


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """One fact. A part that is None does not matter to it.

    `of_resource` is a field of the resource with the value that it must have, `share_levels` are those of the
    share; `of_scope` reads the course and the session, where None is for "has none"; `window` gives the time
    span from the times and the course's edit window in microseconds, None for never.
    `computed_from` names the inputs. `compares` is what a plan asks of the fields of a resource besides
    `of_resource` and `share_levels`.
    Which facts can hold together is stated by three fields: it never holds without those that it `implies`,
    never with one that it `excludes`, and only for what is in a scope of the kind that it `needs`.
    """

    name: str
    bit: int = 0  # set below, so that no two facts share one
    meaning: str
    computed_from: tuple[str, ...]
    compares: Callable[[ComparedValues], Predicate] | None = None
    of_resource: tuple[ResourceField, StrEnum | bool] | None = None
    of_scope: Callable[[Course | None, Session | None], bool] | None = None
    window: Callable[[Times, int], Window | None] | None = None
    share_levels: tuple[ShareLevel, ...] = ()
    implies: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    needs: ScopeKind | None = None

    @property
    def is_of_resource(self) -> bool:
        """Whether it is about a piece of content, and so never holds for a course, a session or a create."""
        return any(part == "share" or part.startswith("resource.") for part in self.computed_from)

    def predicate(self, values: ComparedValues) -> Predicate:
        """What the fact asks of the fields of a resource in a scope that does not rule it out, if it is about
        the resource: a scope decides every other fact."""
        parts = [] if self.of_resource is None else [_is(*self.of_resource)]
        if self.share_levels:
            parts.append(any_of(_is(ResourceField.SHARE_LEVEL, level) for level in self.share_levels))
        if self.compares is not None:
            parts.append(self.compares(values))
        return all_of(parts)


def _edit_window(times: Times, edit_window_us: int) -> Window | None:
    created_at = times.created_at
    if created_at is None or not edit_window_us:
        return None
    return created_at - CREATED_AHEAD_US, created_at + edit_window_us


def _is(field: ResourceField, value: str | bool) -> Predicate:
    return Comparison(field, Operator.EQUALS, value.value if isinstance(value, StrEnum) else value)


def _is_open(time: ResourceField, operator: Operator) -> Predicate:
    """Whether one side of a window is open: without a time, or by the time of now."""
    return any_of((Comparison(time, Operator.ABSENT), Comparison(time, operator, from_now_us=0)))


_DEFINED = (
    Fact(
        name="own",
        meaning="the subject owns the resource",
        computed_from=("resource.owner", "request.subject"),
        compares=lambda values: _is(ResourceField.OWNER, str(values.subject)),
    ),
    Fact(
        name="shared_view",
        meaning="the resource is shared with the subject, to see or to change",
        computed_from=("share",),
        share_levels=(ShareLevel.VIEWER, ShareLevel.EDITOR),
    ),
    Fact(
        name="shared_edit",
        meaning="the resource is shared with the subject, to change",
        computed_from=("share",),
        share_levels=(ShareLevel.EDITOR,),
        implies=("shared_view",),
    ),
    Fact(
        name="published",
        meaning="the resource is published, and now is inside its window of availability",
        computed_from=("resource.published", "resource.available_from", "resource.available_until", "now"),
        compares=lambda _: all_of(
            (
                _is_open(ResourceField.AVAILABLE_FROM, Operator.AT_MOST),
                _is_open(ResourceField.AVAILABLE_UNTIL, Operator.MORE_THAN),
            )
        ),
        of_resource=(ResourceField.PUBLISHED, True),
        window=lambda times, *_: (times.available_from, times.available_until),
    ),
    Fact(
        name="course_visible",
        meaning="the resource's visibility is COURSE, and it is in a course or a session of one",
        computed_from=("resource.visibility", "resource.scope"),
        of_resource=(ResourceField.VISIBILITY, Visibility.COURSE),
        of_scope=lambda course, _: course is not None,
        excludes=("session_visible",),
        needs=ScopeKind.COURSE,
    ),
    Fact(
        name="session_visible",
        meaning="the resource's visibility is SESSION, and it is in a session",
        computed_from=("resource.visibility", "resource.scope"),
        of_resource=(ResourceField.VISIBILITY, Visibility.SESSION),
        of_scope=lambda _, session: session is not None,
        needs=ScopeKind.SESSION,
    ),
    Fact(
        name="attending",
        meaning="the subject has a role in the session, or in the course if the session is open to it",
        computed_from=("memberships", "session.open_to_course"),
        needs=ScopeKind.SESSION,
    ),
    Fact(
        name="within_edit_window",
        meaning="the resource was created less than the course's edit window ago",
        computed_from=("resource.created_at", "course.edit_window", "now"),
        compares=lambda values: all_of(
            (
                Comparison(ResourceField.CREATED_AT, Operator.AT_MOST, from_now_us=CREATED_AHEAD_US),
                Comparison(ResourceField.CREATED_AT, Operator.MORE_THAN, from_now_us=-values.edit_window_us),
            )
        ),
        window=_edit_window,
    ),
    Fact(
        name="locked",
        meaning="the resource is locked",
        computed_from=("resource.locked",),
        of_resource=(ResourceField.LOCKED, True),
    ),
    Fact(
        name="ai_enabled",
        meaning="the course and the resource both allow AI features",
        computed_from=("resource.ai_allowed", "course.ai_enabled"),
        of_resource=(ResourceField.AI_ALLOWED, True),
        of_scope=lambda course, _: course is not None and course.ai_enabled,
        needs=ScopeKind.COURSE,
    ),
    Fact(
        name="for_ai_response",
        meaning="the request's purpose is `ai_response`",
        computed_from=("request.purpose",),
    ),
    Fact(
        name="course_archived",
        meaning="the course is archived",
        computed_from=("course.state",),
        of_scope=lambda course, _: course is not None and course.state is CourseState.ARCHIVED,
        needs=ScopeKind.COURSE,
    ),
    Fact(
        name="session_live",
        meaning="the session is live",
        computed_from=("session.state",),
        of_scope=lambda _, session: session is not None and session.state is SessionState.LIVE,
        excludes=("session_ended",),
        needs=ScopeKind.SESSION,
    ),
    Fact(
        name="session_ended",
        meaning="the session has ended or was cancelled, by its state and not by the clock",
        computed_from=("session.state",),
        of_scope=lambda _, session: (
            session is not None and session.state in (SessionState.ENDED, SessionState.CANCELLED)
        ),
        needs=ScopeKind.SESSION,
    ),
)

FACTS = tuple(msgspec.structs.replace(fact, bit=1 << place) for place, fact in enumerate(_DEFINED))
FACTS_BY_NAME: dict[str, Fact] = {fact.name: fact for fact in FACTS}


def mask_of(facts: Iterable[Fact]) -> int:
    """Some facts as one number."""
    return reduce(or_, (fact.bit for fact in facts), 0)


OWN = FACTS_BY_NAME["own"].bit
ATTENDING = FACTS_BY_NAME["attending"].bit
WITHIN_EDIT_WINDOW = FACTS_BY_NAME["within_edit_window"].bit
FOR_AI_RESPONSE = FACTS_BY_NAME["for_ai_response"].bit
COURSE_ARCHIVED = FACTS_BY_NAME["course_archived"].bit
SHARED = mask_of(fact for fact in FACTS if fact.share_levels)
TIMED = mask_of(fact for fact in FACTS if fact.window is not None)
ALL_FACTS = mask_of(FACTS)

TIMED_FACTS = tuple((fact.bit, fact.window) for fact in FACTS if fact.window is not None)
"""The bit and the window of each fact that time changes."""
_IMPLIED = {fact.bit: mask_of(FACTS_BY_NAME[name] for name in fact.implies) for fact in FACTS}
_EXCLUDED = {
    fact.bit: mask_of(other for other in FACTS if other.name in fact.excludes or fact.name in other.excludes)
    for fact in FACTS
}
_RELATED = [(bit, _IMPLIED[bit], _EXCLUDED[bit]) for bit in _IMPLIED if _IMPLIED[bit] | _EXCLUDED[bit]]
"""Each fact that implies or excludes others, with these."""
_UNCONDITIONAL = mask_of(fact for fact in FACTS if fact.window is not None and fact.of_resource is None)
_RESOURCE_FACTS = [
    (fact.bit, fact.of_resource[0].value, fact.of_resource[1])
    for fact in FACTS
    if fact.of_resource is not None
]
_SCOPE_FACTS = [(f.bit, f.of_scope, f.of_resource is None) for f in FACTS if f.of_scope is not None]
_SHARE_FACTS = {level: mask_of(fact for fact in FACTS if level in fact.share_levels) for level in ShareLevel}


def fact_names(mask: int) -> tuple[str, ...]:
    """The names of the facts in a mask, in the order of `FACTS`."""
    return tuple(fact.name for fact in FACTS if mask & fact.bit)


def consequences(required: int, forbidden: int) -> tuple[int, int] | None:
    """All facts that hold, and all that do not, where `required` hold and `forbidden` do not.

    None if no subject and resource can be so.
    """
    before = (-1, -1)
    while before != (required, forbidden):
        if required & forbidden:
            return None
        before = (required, forbidden)
        for bit, implied, excluded in _RELATED:
            if bit & required:
                required |= implied
                forbidden |= excluded
            elif implied & forbidden:
                forbidden |= bit
    return required, forbidden


def resource_facts(resource: Resource) -> int:
    """The facts whose resource part holds: a scope may rule some of them out, time others."""
    return reduce(
        or_,
        (bit for bit, field, value in _RESOURCE_FACTS if getattr(resource, field) == value),
        _UNCONDITIONAL,
    )


def times_of(resource: Resource) -> Times:
    """What the timed facts of a resource are computed from."""
    return Times(resource.available_from, resource.available_until, resource.created_at)


def scope_facts(course: Course | None, session: Session | None) -> tuple[int, int]:
    """(facts, possible): the facts that the scope alone establishes, and those that it does not rule out."""
    facts, possible = 0, ALL_FACTS
    for bit, holds, is_alone in _SCOPE_FACTS:
        if not holds(course, session):
            possible &= ~bit
        elif is_alone:
            facts |= bit
    return facts, possible


def share_facts(level: ShareLevel | None) -> int:
    """The facts that a share establishes."""
    return 0 if level is None else _SHARE_FACTS[level]
