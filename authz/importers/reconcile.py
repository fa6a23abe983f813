"""Adapts a roster to the directory: keeps what it does not contain, deletes what it has replaced."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import msgspec

from authz.domain.entities import Course, Membership, MembershipStatus, Versioned
from authz.domain.mutations import Mutation, Operation
from authz.importers.files import ParsedSource, RowFault, Sourced
from authz.importers.oneroster import ENROLLMENTS, SOURCE

_KEPT = (MembershipStatus.SUSPENDED, MembershipStatus.COMPLETED)


class DirectoryReader(Protocol):
    """What reconciliation reads from the directory. `authz.client.Client` implements it."""

    def read_courses(self) -> Iterator[Versioned[Course]]:
        """Every course."""

    def read_memberships(
        self, *, statuses: Sequence[MembershipStatus] = (), source: str = ""
    ) -> Iterator[Versioned[Membership]]:
        """The memberships, filtered by status and source if given."""


def reconciled(parsed: ParsedSource, directory: DirectoryReader) -> list[Sourced]:
    """The mutations of a roster, adapted to the directory into which it is imported.

    Existing courses keep their state and settings, which a roster does not contain. A suspended or completed
    membership keeps its status, although it is still on the roster. If an enrollment now has another role,
    class or user, the membership that it had before is deleted, just before the new one is written. A change
    that is made between this read and the import is overwritten.
    """
    courses = {versioned.entity.id: versioned.entity for versioned in directory.read_courses()}
    held = (versioned.entity for versioned in directory.read_memberships(statuses=_KEPT))
    statuses = {membership.key: membership.status for membership in held}
    before: dict[str, list[Sourced]] = {}
    for superseded, line in _superseded(parsed, directory):
        parsed.notes.append(RowFault(ENROLLMENTS, line, f"deletes the previous {superseded.key}"))
        deletion = Sourced(Mutation(Operation.DELETE, superseded.key), ENROLLMENTS, line)
        before.setdefault(superseded.source_ref, []).append(deletion)
        if superseded.key in statuses:
            for key in parsed.named[superseded.source_ref]:
                statuses.setdefault(key, superseded.status)
    found: list[Sourced] = []
    for each in parsed.mutations:
        target = each.mutation.target
        if each.mutation.operation is Operation.TOUCH and isinstance(target, Course):
            target = courses.get(target.id, target)
        elif isinstance(target, Membership):
            # Next to each other, so usually in one transaction.
            found += before.pop(target.source_ref, ())
            target = msgspec.structs.replace(target, status=statuses.get(target.key, target.status))
        found.append(Sourced(Mutation(each.mutation.operation, target), each.file, each.line))
    return [deletion for deletions in before.values() for deletion in deletions] + found


def _superseded(parsed: ParsedSource, directory: DirectoryReader) -> Iterator[tuple[Membership, int]]:
    """Memberships whose enrollment now names another, each with the line of that enrollment."""
    touched = {each.mutation.key for each in parsed.mutations}
    for versioned in directory.read_memberships(source=SOURCE):
        held = versioned.entity
        named = parsed.named.get(held.source_ref)
        if named is not None and held.key not in named and held.key not in touched:
            yield held, next(iter(named.values()))
