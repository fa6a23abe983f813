"""Plans the import of a roster into the directory as it is."""

from __future__ import annotations

from authz.domain.entities import Account, AccountStatus, Membership
from authz.domain.instants import Instant, format_instant
from authz.domain.mutations import Mutation, Operation
from authz.importers.oneroster.courses import CoursePlan, plan_courses
from authz.importers.oneroster.directory import DirectoryState, read_held
from authz.importers.oneroster.manifest import USERS
from authz.importers.oneroster.memberships import MembershipPlan
from authz.importers.oneroster.plan import Action, Change, Plan
from authz.importers.oneroster.precedence import resolve_enrollments
from authz.importers.oneroster.rows import Roster, RowState
from authz.importers.reader import DirectoryReader
from authz.importers.report import RowFault, in_order


def plan_import(
    roster: Roster, directory: DirectoryReader, *, now: Instant, deletes_classes: bool = False
) -> Plan:
    """What the import would change. Nothing is written, and what already is as the roster says is left out.

    A change that somebody makes to one of these records between this and the import is overwritten.
    """
    held = read_held(roster, directory, now)
    courses = plan_courses(roster, held, now=now, deletes_classes=deletes_classes)
    memberships = MembershipPlan(roster, held, resolve_enrollments(roster, held), now=now)
    accounts = _accounts(roster, held, now=now)
    giving = [change for change in memberships.giving if not _is_in(courses.deleted, change)]
    changed_classes = {change.line for change in (*courses.ending, *courses.giving) if change.line}
    _count_closed(held, courses, memberships)
    return Plan(
        changes=[
            *accounts,
            *sorted(memberships.ending, key=lambda change: change.line),
            *courses.ending,
            *courses.giving,
            *giving,
        ],
        unchanged=len(roster.classes) - len(changed_classes) + memberships.unchanged,
        faults=in_order(roster.faults),
        notes=in_order(roster.notes),
        live=sum(each.is_live for each in held.memberships.values()),
        ended=len(memberships.ended),
        absent=len(memberships.absent),
    )


def _accounts(roster: Roster, held: DirectoryState, *, now: Instant) -> list[Change]:
    """Suspend the accounts of users who are deleted or disabled, so that they have no role anywhere.

    A suspension until a time loses its end. No import lifts the suspension of an account, because nothing
    tells who gave it.
    """
    changes = []
    for subject, row in roster.users.items():
        account = held.suspended.get(subject)
        until = None if account is None else account.suspended_until
        if row.state is RowState.ENDED and (account is None or until is not None):
            new = Account(subject=subject, status=AccountStatus.SUSPENDED)
            detail = "" if until is None else f"suspended_until {format_instant(until)} -> none"
            mutation = Mutation(Operation.TOUCH, new)
            changes.append(Change(mutation, USERS, row.line, action=Action.SUSPEND, detail=detail))
        elif row.state is RowState.ACTIVE and account is not None and (until is None or until > now):
            text = f"{account.key} stays suspended; only a person may lift that"
            roster.notes.append(RowFault(USERS, row.line, text))
    return changes


def _is_in(course_ids: set[str], change: Change) -> bool:
    target = change.mutation.target
    return isinstance(target, Membership) and target.scope.id in course_ids


def _count_closed(held: DirectoryState, courses: CoursePlan, memberships: MembershipPlan) -> None:
    """Count the live memberships of the courses that end."""
    for key, each in held.memberships.items():
        if each.is_live and key.scope.id in courses.closed:
            memberships.ended.add(key)
            if courses.closed[key.scope.id]:
                memberships.absent.add(key)
