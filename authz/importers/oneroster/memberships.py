"""Plans the memberships of a roster's enrollments."""

from __future__ import annotations

import msgspec

from authz.domain.entities import Membership, MembershipKey, MembershipStatus
from authz.domain.ids import Subject
from authz.domain.instants import Instant, format_instant
from authz.domain.mutations import Mutation, Operation
from authz.importers.oneroster.directory import DirectoryState, ImportedMembership, is_live
from authz.importers.oneroster.manifest import CLASSES, ENROLLMENTS, USERS, Mode
from authz.importers.oneroster.plan import Action, Change
from authz.importers.oneroster.precedence import ResolvedEnrollments, takes_precedence
from authz.importers.oneroster.rows import Enrollment, Roster, RowState
from authz.importers.oneroster.source_ref import SourceRef, parse_source_ref
from authz.importers.report import printable, quoted

Cause = tuple[str, int]
"""The file and line that a change comes from."""

_COMPLETED = MembershipStatus.COMPLETED


class MembershipPlan:
    """The changes of memberships: `ending` access, and `giving` it, in the order of the file.

    Where an enrollment has moved to another membership, the deletion of the former is just before the new
    one, so that both are in one transaction. Of the live memberships, `ended` lose their role,
    `absent` of them because the export does not contain them.
    """

    def __init__(
        self, roster: Roster, held: DirectoryState, resolved: ResolvedEnrollments, *, now: Instant
    ) -> None:
        self.ending: list[Change] = []
        self.giving: list[Change] = []
        self.ended: set[MembershipKey] = set()
        self.absent: set[MembershipKey] = set()
        self._changed_lines: set[int] = set()
        self._roster = roster
        self._held = held
        self._resolved = resolved
        self._now = now
        self._users, self._classes = roster.users, roster.classes
        self._moved: dict[str, list[ImportedMembership]] = {}
        self._disabled = {h.entity.subject for h in held.memberships.values() if h.ref.suspended_by_user}
        for key, each in held.memberships.items():
            if key not in resolved.wanted:
                self._plan_unwanted(each)
        for key, row in resolved.wanted.items():
            self._plan_wanted(key, row)
        for ref in list(self._moved):
            self._plan_moved(resolved.by_ref[ref], None)

    @property
    def unchanged(self) -> int:
        """How many rows change nothing, not counting faulty rows and those that another row overrides."""
        resolved = self._resolved
        ended = sum(row.state is RowState.ENDED for row in resolved.by_ref.values())
        rows = len(resolved.wanted) + ended + len(resolved.ended) + len(resolved.stale)
        return rows - len(self._changed_lines)

    def _plan_unwanted(self, held: ImportedMembership) -> None:
        """Plan a membership that no active row gives."""
        entity, ref = held.entity, held.ref.sourced_id
        row = self._resolved.by_ref.get(ref) if ref else None
        faulty = self._resolved.faulty.get((entity.subject, entity.scope))
        if ref in self._resolved.stale:
            self._keep(held)
        elif row is None and entity.key in self._resolved.ended:
            row = self._resolved.ended[entity.key]
            self._remove(held, (ENROLLMENTS, row.line), row.modified_at)
        elif row is not None and row.state is RowState.ENDED:
            self._remove(held, (ENROLLMENTS, row.line), row.modified_at)
        elif row is not None and row.state is RowState.FAULTY:
            self._keep(held, row)
        elif row is not None and row.key != entity.key:
            self._moved.setdefault(ref, []).append(held)
        elif row is None and faulty is not None:
            self._keep(held, faulty)
        elif row is None and self._is_absent(held):
            file = ENROLLMENTS if self._roster.modes[ENROLLMENTS] is Mode.BULK else USERS
            if held.is_live:
                self.absent.add(entity.key)
            self._remove(held, (file, 0), self._resolved.newest)
        else:
            self._keep(held)

    def _is_absent(self, held: ImportedMembership) -> bool:
        modes = self._roster.modes
        return modes[ENROLLMENTS] is Mode.BULK or (
            modes[USERS] is Mode.BULK and held.entity.subject not in self._roster.users
        )

    def _plan_wanted(self, key: MembershipKey, row: Enrollment) -> None:
        """Plan the membership that an active row gives."""
        held = self._held.memberships.get(key)
        if held is None and key in self._held.others:
            source = self._held.others[key]
            owner = f"source {quoted(source)}" if source else "no source"
            self._roster.note(
                row, f"{key} is of {owner}; it is not the roster's to change and stays as it is"
            )
            return
        if held is not None and not self._takes_over(held, row):
            self._keep(held)
            return
        before = self._plan_moved(row, held)
        if held is None:
            new = self._given(row, before)
            change = Change(
                Mutation(Operation.TOUCH, new),
                ENROLLMENTS,
                row.line,
                action=Action.ADD,
                detail=_described(new),
            )
            self._emit(self.giving, change, None)
            return
        if held.is_suspended_by_hand:
            self._roster.note(row, f"{key} stays suspended; only the person who suspended it may lift that")
        self._change(held, self._given(row, held), (ENROLLMENTS, row.line))

    def _plan_moved(self, row: Enrollment, held: ImportedMembership | None) -> ImportedMembership | None:
        """Plan the memberships that an enrollment gave before; return the one whose status goes with it.

        `held` is what is there under the new key. A suspension by hand belongs to a person in a course: its
        record stays, unless the new membership takes the suspension over.
        """
        cause, carried = (ENROLLMENTS, row.line), None
        moved = self._moved.pop(row.ref, [])
        if held is None and row.key in self._resolved.wanted and row.key not in self._held.others:
            own = [each for each in moved if each.entity.subject == row.subject]
            carried = next((each for each in own if each.is_suspended_by_hand), own[0] if own else None)
        for each in moved:
            if each.is_suspended_by_hand and (each is not carried or each.entity.scope != row.scope):
                self._remove(each, cause, row.modified_at)
            else:
                self._delete(each, cause, replaced=row.key in self._resolved.wanted)
        return carried

    def _takes_over(self, held: ImportedMembership, row: Enrollment) -> bool:
        """Whether a row gives a membership that, so far, may be another enrollment's."""
        ref, known, newest = held.ref.sourced_id, held.ref.modified_at, self._resolved.newest
        if ref == row.ref:
            return True
        entity = _ending_at(held.entity, self._term_end(held)[0])  # as it would be kept
        # What only this roster suspends has not ended.
        if not is_live(entity, self._now) and (not held.ref.is_suspended or entity.has_ended(self._now)):
            if known is None or newest is None or newest >= known:
                return True
            self._roster.note(row, f"{entity.key} ended after this export was made; skipped")
            return False
        if ref in self._resolved.stale:
            return False  # else the next import would not know that it is
        if not ref or ref in self._resolved.by_ref or self._roster.modes[ENROLLMENTS] is Mode.BULK:
            return True
        other = msgspec.structs.replace(
            row, modified_at=known, starts_at=entity.starts_at, ends_at=entity.ends_at
        )
        return takes_precedence(row, other)

    def _given(self, row: Enrollment, before: ImportedMembership | None) -> Membership:
        """The membership that a row gives. A suspension by hand, also until a time, and a completion stay."""
        assert row.subject is not None  # noqa: S101  an active row has both
        assert row.scope is not None  # noqa: S101
        known = before.ref.modified_at if before is not None and before.ref.sourced_id == row.ref else None
        by_user = self._is_disabled(row.subject)
        status = MembershipStatus.SUSPENDED if by_user else MembershipStatus.ACTIVE
        if before is not None and (before.has_status_by_hand or before.entity.status is _COMPLETED):
            status, by_user = before.entity.status, False
        modified_at = self._recorded(row.modified_at, known)
        ref = SourceRef(row.ref, modified_at, row.ends_with_term, suspended_by_user=by_user)
        return Membership(
            subject=row.subject,
            scope=row.scope,
            role=row.role,
            status=status,
            starts_at=row.starts_at,
            ends_at=row.ends_at,
            source=self._roster.options.source,
            source_ref=str(ref),
            suspended_until=None if before is None else before.entity.suspended_until,
        )

    def _keep(self, held: ImportedMembership, faulty: Enrollment | None = None) -> None:
        """Keep a membership, except for what the export says of its user and of its class's terms.

        A row at fault suspends it until a valid row gives it.
        """
        entity, ref = held.entity, held.ref
        if entity.has_ended(self._now):
            return
        by_row = ref.suspended_by_row or faulty is not None
        by_user = self._is_disabled(entity.subject)
        status = entity.status
        if held.has_status_by_hand or status is _COMPLETED:
            by_row = by_user = False
        elif by_row or by_user:
            status = MembershipStatus.SUSPENDED
        elif ref.is_suspended:
            status = MembershipStatus.ACTIVE
        ends_at, with_term = self._term_end(held)
        new_ref = SourceRef(ref.sourced_id, ref.modified_at, with_term, by_row, by_user)
        new = msgspec.structs.replace(_ending_at(entity, ends_at), status=status, source_ref=str(new_ref))
        user_row, class_row = self._users.get(entity.subject), self._classes.get(entity.scope.id)
        if faulty is not None:
            self._change(held, new, (ENROLLMENTS, faulty.line))
            self._changed_lines.discard(faulty.line)
        elif user_row is not None and by_user is not ref.suspended_by_user:
            self._change(held, new, (USERS, user_row.line))
        else:
            self._change(held, new, (CLASSES, 0 if class_row is None else class_row.line))

    def _term_end(self, held: ImportedMembership) -> tuple[Instant | None, bool]:
        """The end of a membership, and whether it is that of its class's terms."""
        ends_at, with_term = held.entity.ends_at, held.ref.ends_with_term
        row = self._classes.get(held.entity.scope.id)
        if row is None or not row.has_terms or not (with_term or ends_at is None):
            return ends_at, with_term
        return row.ends_at, row.ends_at is not None

    def _is_disabled(self, subject: Subject) -> bool:
        """Whether the user is deleted or disabled, as this export says or else an earlier one did."""
        row = self._users.get(subject)
        return subject in self._disabled if row is None else row.state is not RowState.ACTIVE

    def _remove(self, held: ImportedMembership, cause: Cause, modified_at: Instant | None) -> None:
        """Delete a membership, or end it if its record says what a later import must know.

        That is a suspension by hand, which a later enrollment must not lift, and when the enrollment ended,
        so that an older export cannot open it again.
        """
        entity, known, by_hand = held.entity, held.ref.modified_at, held.is_suspended_by_hand
        if entity.has_ended(self._now) and (known is not None or by_hand):
            if modified_at is None or (known is not None and known >= modified_at):
                return
        elif modified_at is None and known is None and not by_hand:
            self._delete(held, cause)
            return
        if modified_at is None and known is not None:
            modified_at = self._now
        end = min(self._now if modified_at is None else modified_at, self._now)
        status = entity.status if held.has_status_by_hand else MembershipStatus.ACTIVE
        new = msgspec.structs.replace(
            _ending_at(entity, end if entity.ends_at is None else min(end, entity.ends_at)),
            status=status,
            source_ref=str(SourceRef(held.ref.sourced_id, self._recorded(modified_at, known))),
        )
        self._change(held, new, cause, Action.REMOVE)

    def _recorded(self, modified_at: Instant | None, known: Instant | None) -> Instant | None:
        """The date to record. One in the future would make every later row an older one."""
        if modified_at is not None and modified_at <= self._now:
            return modified_at
        return known if known is not None or modified_at is None else self._now

    def _delete(self, held: ImportedMembership, cause: Cause, *, replaced: bool = False) -> None:
        """Delete a membership. One that is replaced by another has not ended."""
        detail = f"enrollment {quoted(held.ref.sourced_id)} names another membership now" if replaced else ""
        mutation = Mutation(Operation.DELETE, held.entity.key)
        change = Change(mutation, *cause, action=Action.REMOVE, detail=detail)
        self._emit(self.giving if replaced else self.ending, change, None if replaced else held)

    def _change(
        self, held: ImportedMembership, new: Membership, cause: Cause, action: Action = Action.CHANGE
    ) -> None:
        if new == held.entity:
            return
        if action is Action.CHANGE and MembershipStatus.SUSPENDED is new.status is not held.entity.status:
            action = Action.SUSPEND
        changes = self.giving if is_live(new, self._now) else self.ending
        change = Change(
            Mutation(Operation.TOUCH, new), *cause, action=action, detail=_difference(held.entity, new)
        )
        self._emit(changes, change, held)

    def _emit(self, changes: list[Change], change: Change, held: ImportedMembership | None) -> None:
        """Record a change, and that it ends the role of `held` if it does."""
        changes.append(change)
        if change.file == ENROLLMENTS and change.line:
            self._changed_lines.add(change.line)
        if held is not None and held.is_live and changes is self.ending:
            self.ended.add(held.entity.key)


def _ending_at(membership: Membership, ends_at: Instant | None) -> Membership:
    """The membership with this end, and without a start that would be after it."""
    starts_at = membership.starts_at
    if starts_at is not None and ends_at is not None and starts_at >= ends_at:
        starts_at = None
    return msgspec.structs.replace(membership, starts_at=starts_at, ends_at=ends_at)


def _described(membership: Membership) -> str:
    """The status and dates of a new membership, as far as they say something."""
    parts = []
    if membership.status is not MembershipStatus.ACTIVE:
        parts.append(f"{membership.status.value}{_cause(membership)}")
    if membership.starts_at is not None:
        parts.append(f"from {format_instant(membership.starts_at)}")
    if membership.ends_at is not None:
        parts.append(f"until {format_instant(membership.ends_at)}")
    if membership.suspended_until is not None:
        parts.append(f"suspended until {format_instant(membership.suspended_until)}")
    return ", ".join(parts)


def _difference(before: Membership, after: Membership) -> str:
    """What has changed, field by field."""
    parts = []
    if before.status is not after.status:
        parts.append(f"{before.status.value} -> {after.status.value}{_cause(after)}")
    for name in ("starts_at", "ends_at"):
        old, new = getattr(before, name), getattr(after, name)
        if old != new:
            parts.append(f"{name} {_when(old)} -> {_when(new)}")
    if before.source_ref != after.source_ref:
        parts.append(printable(f"source_ref {before.source_ref} -> {after.source_ref}"))
    return ", ".join(parts)


def _cause(membership: Membership) -> str:
    ref = parse_source_ref(membership.source_ref)
    if ref.suspended_by_row:
        return ": the row is at fault"
    return ": the user is deleted, disabled or at fault" if ref.suspended_by_user else ""


def _when(instant: Instant | None) -> str:
    return "none" if instant is None else format_instant(instant)
