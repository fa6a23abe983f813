"""Plans the courses of a roster's classes.

A class that is to be deleted concludes its course. A marker, a suspended membership of `service:<source>` in
the course, records that the roster did so, because only then may the roster make the course active again. Not
if somebody has changed the course since: they may have made it active and concluded it again.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from authz.domain.entities import Course, CourseState, Membership, MembershipStatus
from authz.domain.ids import course_scope
from authz.domain.instants import Instant
from authz.domain.mutations import Mutation, Operation
from authz.importers.oneroster.directory import DirectoryState, marker_subject
from authz.importers.oneroster.manifest import CLASSES, Mode
from authz.importers.oneroster.plan import Action, Change
from authz.importers.oneroster.rows import ClassRow, Roster, RowState
from authz.importers.oneroster.source_ref import SourceRef
from authz.importers.report import RowFault

_MARKER_REF = "class"


class CoursePlan(msgspec.Struct, frozen=True):
    """Changes that end access, and that give it: of courses that are `deleted`, and of others.

    `closed` are all courses that end, True for those whose class is absent.
    """

    ending: list[Change] = []
    giving: list[Change] = []
    closed: dict[str, bool] = {}
    deleted: set[str] = set()


def plan_courses(roster: Roster, held: DirectoryState, *, now: Instant, deletes_classes: bool) -> CoursePlan:
    """Plan the courses. With `deletes_classes`, a class that is to be deleted deletes its course."""
    plan = CoursePlan()
    for row in roster.classes.values():
        if row.state is RowState.ACTIVE:
            plan.giving.extend(_opened(row, roster, held))
        elif deletes_classes and row.state is RowState.ENDED:
            if row.id in held.courses:
                mutation = Mutation(Operation.DELETE, held.courses[row.id].key)
                detail = "with everything in it"
                plan.ending.append(Change(mutation, CLASSES, row.line, action=Action.REMOVE, detail=detail))
                plan.closed[row.id] = False
                plan.deleted.add(row.id)
        else:
            _conclude(row, roster, held, plan, now)
    for course_id in _absent(roster, held):
        _conclude(ClassRow(course_id, 0, RowState.ENDED), roster, held, plan, now)
    return plan


def _opened(row: ClassRow, roster: Roster, held: DirectoryState) -> Iterator[Change]:
    """The changes of an active class: a new course, or the end of a conclusion by this roster."""
    course, marker = held.courses.get(row.id), held.markers.get(row.id)
    if course is None:
        new = Course(id=row.id, state=CourseState.ACTIVE)
        yield Change(Mutation(Operation.TOUCH, new), CLASSES, row.line, action=Action.ADD)
        return
    is_concluded = course.state is CourseState.CONCLUDED
    if marker is None or (is_concluded and row.id in held.changed):
        if is_concluded:
            cause = (
                "not concluded by this roster" if marker is None else "changed since this roster concluded it"
            )
            text = f"course:{row.id} was {cause}; it stays concluded"
            roster.notes.append(RowFault(CLASSES, row.line, text))
        return
    known = marker.ref.modified_at
    if known is not None and row.modified_at is not None and row.modified_at < known:
        text = f"class of course:{row.id} is older than in an earlier import; skipped"
        roster.notes.append(RowFault(CLASSES, row.line, text))
        return
    if is_concluded:
        yield _with_state(course, CourseState.ACTIVE, row)
    deletion = Mutation(Operation.DELETE, marker.entity.key)
    yield Change(deletion, CLASSES, row.line, action=Action.CHANGE, detail="the class is active again")


def _conclude(row: ClassRow, roster: Roster, held: DirectoryState, plan: CoursePlan, now: Instant) -> None:
    """Conclude an active course. One in another state, and one reopened by hand since, stays as it is."""
    course = held.courses.get(row.id)
    if course is None or course.state is not CourseState.ACTIVE:
        return
    if row.id in held.markers:
        text = f"course:{row.id} was made active by hand since the roster concluded it; it stays active"
        roster.notes.append(RowFault(CLASSES, row.line, text))
        return
    plan.closed[row.id] = not row.line
    plan.ending.append(_with_state(course, CourseState.CONCLUDED, row))
    marker = Membership(
        subject=marker_subject(roster.options.source),
        scope=course_scope(row.id),
        role=roster.options.roles.get("student", "student"),
        status=MembershipStatus.SUSPENDED,
        source=roster.options.source,
        source_ref=str(
            SourceRef(_MARKER_REF, None if row.modified_at is None else min(row.modified_at, now))
        ),
    )
    mutation = Mutation(Operation.TOUCH, marker)
    detail = "records that the roster concluded the course"
    plan.ending.append(Change(mutation, CLASSES, row.line, action=Action.ADD, detail=detail))


def _with_state(course: Course, state: CourseState, row: ClassRow) -> Change:
    mutation = Mutation(Operation.TOUCH, msgspec.structs.replace(course, state=state))
    detail = f"{course.state.value} -> {state.value}"
    return Change(mutation, CLASSES, row.line, action=Action.CHANGE, detail=detail)


def _absent(roster: Roster, held: DirectoryState) -> list[str]:
    """The courses of live memberships of the roster whose class a bulk file does not contain."""
    if roster.modes[CLASSES] is not Mode.BULK:
        return []
    known = dict.fromkeys(each.entity.scope.id for each in held.memberships.values() if each.is_live)
    return [course_id for course_id in known if course_id not in roster.classes]
