"""What tests of plans look at, and rows that they share."""

from __future__ import annotations

from typing import Any

import msgspec

from authz.domain.entities import MembershipStatus
from authz.importers.oneroster.plan import Plan
from tests.importers.exports import Campus, Row, at, enrolled

SUSPENDED, COMPLETED = MembershipStatus.SUSPENDED, MembershipStatus.COMPLETED
ROSTER = {"classes": "bulk", "enrollments": "bulk"}
DELTA = {"enrollments": "delta"}


def faults(plan: Plan) -> list[str]:
    return [str(fault) for fault in plan.faults]


def notes(plan: Plan) -> list[str]:
    return [str(note) for note in plan.notes if note.file != "manifest.csv"]


def changes(plan: Plan) -> list[str]:
    return [f"{change.action.value} {change}" for change in plan.changes]


WAYS_TO_SUSPEND: list[dict[str, Any]] = [{"status": SUSPENDED}, {"suspended_until": at("2096-01-01")}]
"""What a person writes who suspends somebody: without an end, and until a time."""


def suspend(campus: Campus, *subjects: str, **how: Any) -> None:
    for subject in subjects:
        written = how or {"status": SUSPENDED}
        campus.write(*(msgspec.structs.replace(each, **written) for each in campus.of(subject)))


def changed(
    ref: str, user_id: str, status: str = "active", modified: str = "2026-09-10", **others: str
) -> Row:
    """A row of a delta."""
    return enrolled(ref, "alg", user_id, status=status, modified=modified, **others)
