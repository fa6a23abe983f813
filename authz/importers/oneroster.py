"""Reads a OneRoster 1.1 bulk export: its classes become courses, its enrollments memberships.

Source: IMS Global, OneRoster v1.1 CSV tables, classes.csv and enrollments.csv. The `endDate` of an
enrollment is exclusive, so it becomes `ends_at` at midnight UTC. A status other than `active` and
`tobedeleted` is a fault, because it must not count as active.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec

from authz.domain.entities import Course, CourseKey, CourseState, Membership, MembershipKey
from authz.domain.errors import ErrorReason, InvalidArgumentError
from authz.domain.ids import Subject, SubjectType, course_scope, parse_id
from authz.domain.instants import MAX_INSTANT, MIN_INSTANT, Instant, parse_instant
from authz.domain.mutations import Mutation, Operation
from authz.importers.files import Folder, ParsedSource, Record, RowFault, Sourced, read_csv

SOURCE = "oneroster"
CLASSES = "classes.csv"
ENROLLMENTS = "enrollments.csv"
DEFAULT_ROLES: dict[str, str] = {"teacher": "teacher", "student": "student", "aide": "teaching_assistant"}
"""From OneRoster roles to roles of the policy. A `primary` teacher becomes an owner. Others are faults."""

_PRIMARY_TEACHER = ("teacher", "teacher")
_IS_TO_BE_DELETED = {"": False, "active": False, "tobedeleted": True}
_CLASS_COLUMNS = ("sourcedId",)
_CLASS_OPTIONS = ("status",)
_ENROLLMENT_COLUMNS = ("sourcedId", "classSourcedId", "userSourcedId", "role")
_ENROLLMENT_OPTIONS = ("status", "primary", "beginDate", "endDate")


class _Enrollment(msgspec.Struct, frozen=True):
    """One row. `membership` is None if it is to be deleted or never in effect."""

    key: MembershipKey
    membership: Membership | None
    line: int

    @property
    def length(self) -> tuple[bool, Instant, Instant]:
        """Orders rows with the same key: the longest in effect is the greatest."""
        if self.membership is None:
            return (False, 0, 0)
        start, end = self.membership.starts_at, self.membership.ends_at
        return (True, MAX_INSTANT if end is None else end, -(MIN_INSTANT if start is None else start))


def read_oneroster(path: Path, roles: Mapping[str, str] = DEFAULT_ROLES) -> ParsedSource:
    """Read a whole export, a folder or a zip. Memory grows with the number of enrollments.

    Raises `InvalidArgumentError` for a malformed file; invalid rows become faults.
    """
    folder = Folder(path)
    parsed = ParsedSource([], [], [])
    with folder.open(CLASSES) as stream:
        for line, record in read_csv(stream, CLASSES, _CLASS_COLUMNS, _CLASS_OPTIONS):
            try:
                mutation = _course(record)
            except InvalidArgumentError as error:
                parsed.faults.append(RowFault(CLASSES, line, error.message))
            else:
                parsed.mutations.append(Sourced(mutation, CLASSES, line))
    with folder.open(ENROLLMENTS) as stream:
        rows = read_csv(stream, ENROLLMENTS, _ENROLLMENT_COLUMNS, _ENROLLMENT_OPTIONS)
        for row in _choose(_enrollments(rows, roles, parsed), parsed):
            target = row.membership or row.key
            operation = Operation.DELETE if row.membership is None else Operation.TOUCH
            parsed.mutations.append(Sourced(Mutation(operation, target), ENROLLMENTS, row.line))
    return parsed


def _course(record: Record) -> Mutation:
    course_id = parse_id(record["sourcedId"], field="sourcedId")
    if _is_to_be_deleted(record):
        return Mutation(Operation.DELETE, CourseKey(course_id))
    return Mutation(Operation.TOUCH, Course(id=course_id, state=CourseState.ACTIVE))


def _enrollments(
    rows: Iterator[tuple[int, Record]], roles: Mapping[str, str], parsed: ParsedSource
) -> Iterator[_Enrollment]:
    for line, record in rows:
        role = roles.get(record["role"])
        if role is None:
            text = f"role `{record['role']}` is not mapped; map it with `--role-map {record['role']}=…`"
            parsed.faults.append(RowFault(ENROLLMENTS, line, text))
            continue
        # Only the source's role `teacher`: another role that is mapped to `teacher` must not become owner.
        if (record["role"], role) == _PRIMARY_TEACHER and record.get("primary", "").lower() == "true":
            role = "owner"
        try:
            yield _enrollment(record, role, line, parsed)
        except InvalidArgumentError as error:
            parsed.faults.append(RowFault(ENROLLMENTS, line, error.message))


def _enrollment(record: Record, role: str, line: int, parsed: ParsedSource) -> _Enrollment:
    subject = Subject(SubjectType.USER, parse_id(record["userSourcedId"], field="userSourcedId"))
    scope = course_scope(parse_id(record["classSourcedId"], field="classSourcedId"))
    key = MembershipKey(subject, scope, role)
    parsed.named.setdefault(record["sourcedId"], {})[key] = line
    if _is_to_be_deleted(record):
        return _Enrollment(key, None, line)
    starts_at, ends_at = _date(record, "beginDate"), _date(record, "endDate")
    if starts_at is not None and ends_at is not None and ends_at <= starts_at:
        text = f"never in effect: ends on {record['endDate']}, begins on {record['beginDate']}; skipped"
        parsed.notes.append(RowFault(ENROLLMENTS, line, text))
        return _Enrollment(key, None, line)
    membership = Membership(
        subject=subject,
        scope=scope,
        role=role,
        starts_at=starts_at,
        ends_at=ends_at,
        source=SOURCE,
        source_ref=record["sourcedId"],
    )
    return _Enrollment(key, membership, line)


def _is_to_be_deleted(record: Record) -> bool:
    status = record.get("status", "")
    gone = _IS_TO_BE_DELETED.get(status.lower())
    if gone is None:
        raise InvalidArgumentError(
            ErrorReason.MALFORMED_FIELD,
            f"status `{status}` is neither `active` nor `tobedeleted`; use one of them",
            field="status",
        )
    return gone


def _date(record: Record, column: str) -> Instant | None:
    text = record.get(column, "")
    return parse_instant(text, field=column) if text else None


def _choose(rows: Iterator[_Enrollment], parsed: ParsedSource) -> list[_Enrollment]:
    """One row per membership: of several, the longest in effect. The others become notes."""
    chosen: dict[MembershipKey, _Enrollment] = {}
    for row in rows:
        other = chosen.get(row.key)
        if other is None:
            chosen[row.key] = row
            continue
        kept, left = (row, other) if row.length > other.length else (other, row)
        chosen[row.key] = kept
        if left.membership is not None:
            text = f"{row.key} is also on line {kept.line}, which is in effect longer; skipped"
            parsed.notes.append(RowFault(ENROLLMENTS, left.line, text))
    return list(chosen.values())
