"""Which of several rows about one membership counts, by each other and by what the directory knows.

1. Of the rows of one enrollment, that is with one sourcedId, the newest; of those, the rows that end it.
2. None of an enrollment of which an earlier import had a newer row.
3. Of the enrollments that give one membership, the newest; if the dates do not say which, the longer one.

For example, if `e1` makes ada a student of algebra-1 until May, and `e2`, which is as new, until June, `e2`
counts. If `e2` is also on a newer line that ends it, `e1` counts.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from authz.domain.entities import CourseState, MembershipKey
from authz.domain.ids import Scope, Subject
from authz.domain.instants import Instant
from authz.importers.oneroster.directory import DirectoryState
from authz.importers.oneroster.manifest import CLASSES, ENROLLMENTS, USERS, Mode
from authz.importers.oneroster.rows import Enrollment, Roster, RowState, is_newer, length_of
from authz.importers.report import RowFault, quoted


class ResolvedEnrollments(msgspec.Struct, frozen=True):
    """What the enrollments of an export say.

    `wanted` is the row of each membership that the roster gives. `by_ref` is the row of each enrollment,
    `stale` are those that an earlier export knew better. `ended` and `faulty` hold what rows end without a
    sourcedId, and whom rows at fault name. `newest` is the latest `dateLastModified`.
    """

    wanted: dict[MembershipKey, Enrollment] = {}
    by_ref: dict[str, Enrollment] = {}
    stale: set[str] = set()
    ended: dict[MembershipKey, Enrollment] = {}
    faulty: dict[tuple[Subject, Scope], Enrollment] = {}
    newest: Instant | None = None


def resolve_enrollments(roster: Roster, held: DirectoryState) -> ResolvedEnrollments:
    """What the enrollments say. Notes name the rows that do not count. An enrollment without its class or
    user is a fault."""
    return _Resolution(roster, held).resolve()


class _Resolution:
    def __init__(self, roster: Roster, held: DirectoryState) -> None:
        self._roster = roster
        self._held = held
        self._found = ResolvedEnrollments(newest=_newest(roster.enrollments))
        self._term_ends = _term_ends(roster, held)
        self._last_known: dict[str, Instant] = {}
        for each in held.memberships.values():
            known, ref = each.ref.modified_at, each.ref.sourced_id
            if known is not None:
                self._last_known[ref] = max(known, self._last_known.get(ref, known))

    def resolve(self) -> ResolvedEnrollments:
        for read in _newest_of_each(self._roster):
            if self._is_stale(read):
                continue
            row = self._with_term_end(self._checked(read))
            if row.ref:
                self._found.by_ref[row.ref] = row
            self._add(row)
        return self._found

    def _is_stale(self, row: Enrollment) -> bool:
        known = self._last_known.get(row.ref) if row.ref else None
        if known is None or row.modified_at is None or row.modified_at >= known:
            return False
        self._found.stale.add(row.ref)
        self._roster.note(row, f"enrollment {quoted(row.ref)} is older than in an earlier import; skipped")
        return True

    def _checked(self, row: Enrollment) -> Enrollment:
        """The row, FAULTY if it is active and its class, its user or its role is not known."""
        if row.state is not RowState.ACTIVE or row.scope is None or row.subject is None:
            return row
        problem = ""
        class_row = self._roster.classes.get(row.scope.id)
        if class_row is None and self._roster.modes[CLASSES] is Mode.BULK:
            problem = f"names class {quoted(row.scope.id)}, which is not in {CLASSES}"
        elif class_row is None and row.scope.id not in self._held.courses:
            problem = f"names class {quoted(row.scope.id)}, which is neither in {CLASSES} nor a course"
        elif self._roster.modes[USERS] is Mode.BULK and row.subject not in self._roster.users:
            problem = f"names user {quoted(row.subject.id)}, who is not in {USERS}"
        elif row.role in self._held.refused_roles:
            problem = f"{self._held.refused_roles[row.role]}; map the role with `--role-map`"
        if not problem:
            return row
        self._roster.faults.append(RowFault(ENROLLMENTS, row.line, problem))
        return msgspec.structs.replace(row, state=RowState.FAULTY)

    def _with_term_end(self, row: Enrollment) -> Enrollment:
        """The row, with the end of its class's terms if it states none."""
        if row.state is not RowState.ACTIVE or row.ends_at is not None or row.scope is None:
            return row
        end = self._term_ends.get(row.scope.id)
        if end is None:
            return row
        if row.starts_at is None or row.starts_at < end:
            return msgspec.structs.replace(row, ends_at=end, ends_with_term=True)
        class_row = self._roster.classes.get(row.scope.id)
        if class_row is None or not class_row.has_terms:
            return row  # its class has other terms than when an earlier import recorded this end
        self._roster.note(row, "never in effect: begins after the terms of its class end; skipped")
        return msgspec.structs.replace(row, state=RowState.ENDED)

    def _add(self, row: Enrollment) -> None:
        """Keep a row by its state. What it gives, if anything, has to win against what other rows give."""
        key = row.key
        if row.state is RowState.FAULTY:
            if row.subject is not None and row.scope is not None:
                self._found.faulty.setdefault((row.subject, row.scope), row)
        elif key is None:
            return
        elif row.state is RowState.ENDED:
            if not row.ref:
                self._found.ended[key] = row
        elif self._is_of_held(row, key) or self._is_in_open_class(row):
            other = self._found.wanted.get(key)
            self._found.wanted[key] = row if other is None else self._preferred(key, row, other)

    def _is_of_held(self, row: Enrollment, key: MembershipKey) -> bool:
        """Whether the enrollment gives this membership already. A class that is over gives no new one."""
        held = self._held.memberships.get(key)
        if held is None or not row.ref or held.ref.sourced_id != row.ref:
            return False
        return held.is_live or held.ref.is_suspended

    def _is_in_open_class(self, row: Enrollment) -> bool:
        assert row.scope is not None  # noqa: S101  its key is whole
        why = self._why_closed(row.scope.id)
        if why:
            self._roster.note(row, f"is in class {quoted(row.scope.id)}, which is {why}; skipped")
        return not why

    def _why_closed(self, class_id: str) -> str:
        """Why enrollments in a class give nothing, as this export says or else an earlier one did."""
        row, course = self._roster.classes.get(class_id), self._held.courses.get(class_id)
        if row is not None:
            whys = {RowState.ENDED: "to be deleted", RowState.FAULTY: f"at fault in {CLASSES}"}
            return whys.get(row.state, "")
        is_concluded = course is not None and course.state is CourseState.CONCLUDED
        return "concluded by an earlier import" if is_concluded and class_id in self._held.markers else ""

    def _preferred(self, key: MembershipKey, row: Enrollment, other: Enrollment) -> Enrollment:
        kept, left = (row, other) if takes_precedence(row, other) else (other, row)
        if is_newer(kept, left):
            why = "is newer"
        elif length_of(kept.starts_at, kept.ends_at) == length_of(left.starts_at, left.ends_at):
            why = "says the same"
        else:
            why = "is in effect longer"
        self._roster.note(left, f"{key} is also on line {kept.line}, which {why}; skipped")
        return kept


def takes_precedence(row: Enrollment, other: Enrollment) -> bool:
    """Of two enrollments that give one membership: the newer where dates say so, else the longer."""
    is_longer = length_of(row.starts_at, row.ends_at) > length_of(other.starts_at, other.ends_at)
    return is_newer(row, other, otherwise=is_longer)


def _newest_of_each(roster: Roster) -> list[Enrollment]:
    """The rows, of several with one sourcedId the newest; if they are as new, those that end it."""
    chosen: dict[str, list[Enrollment]] = {}
    for row in roster.enrollments:
        # A row without a sourcedId stands for itself.
        chosen.setdefault(row.ref or f"\0{row.line}", []).append(row)
    found = []
    for rows in chosen.values():
        newest = _newest(rows)
        latest = [row for row in rows if row.modified_at in (None, newest)]
        kept = [row for row in latest if row.state is not RowState.ACTIVE] or latest
        found += kept
        for row in rows:
            if row not in kept:
                text = f"enrollment {quoted(row.ref)} is also on line {kept[-1].line}, which counts; skipped"
                roster.note(row, text)
    return found


def _newest(rows: Iterable[Enrollment]) -> Instant | None:
    return max((row.modified_at for row in rows if row.modified_at is not None), default=None)


def _term_ends(roster: Roster, held: DirectoryState) -> dict[str, Instant | None]:
    """The end of the terms of each class: as this export says, else as an earlier import recorded."""
    ends: dict[str, Instant | None] = {}
    for each in held.memberships.values():
        if each.ref.ends_with_term and each.entity.ends_at is not None:
            course_id = each.entity.scope.id
            ends[course_id] = max(each.entity.ends_at, ends.get(course_id) or each.entity.ends_at)
    for row in roster.classes.values():
        if row.has_terms:
            ends[row.id] = row.ends_at
    return ends
