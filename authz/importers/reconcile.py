"""Keeps what a roster does not know when it is imported again, and takes back what it no longer says."""

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
    """What reconciliation reads of the directory; `authz.client.Client` is one."""

    def read_courses(self) -> Iterator[Versioned[Course]]:
        """Every course."""

    def read_memberships(
        self, *, statuses: Sequence[MembershipStatus] = (), source: str = ""
    ) -> Iterator[Versioned[Membership]]:
        """The memberships with one of the statuses, if any are given, and from the source, if one is."""


def reconciled(reading: ParsedSource, directory: DirectoryReader) -> list[Sourced]:
    """The mutations of a roster as they are to be made where an earlier one of it has been imported.

    A roster says that a class exists, not that it is archived or may use AI; and a membership that was
    suspended or completed is not made active by still being on the roster. An enrollment that has
    another role, class or user by now is no longer what it was: that membership goes before the new one
    comes. What changes between this look and the import is overwritten.
    """
    courses = {versioned.entity.id: versioned.entity for versioned in directory.read_courses()}
    held = (versioned.entity for versioned in directory.read_memberships(statuses=_KEPT))
    statuses = {membership.key: membership.status for membership in held}
    before: dict[str, list[Sourced]] = {}
    for superseded, line in _superseded(reading, directory):
        reading.notes.append(RowFault(ENROLLMENTS, line, f"was {superseded.key}, which is taken back"))
        deletion = Sourced(Mutation(Operation.DELETE, superseded.key), ENROLLMENTS, line)
        before.setdefault(superseded.source_ref, []).append(deletion)
        if superseded.key in statuses:
            for key in reading.named[superseded.source_ref]:
                statuses.setdefault(key, superseded.status)
    found: list[Sourced] = []
    for each in reading.mutations:
        target = each.mutation.target
        if each.mutation.operation is Operation.TOUCH and isinstance(target, Course):
            target = courses.get(target.id, target)
        elif isinstance(target, Membership):
            # Together, as a rule in one transaction.
            found += before.pop(target.source_ref, ())
            target = msgspec.structs.replace(target, status=statuses.get(target.key, target.status))
        found.append(Sourced(Mutation(each.mutation.operation, target), each.file, each.line))
    return [deletion for deletions in before.values() for deletion in deletions] + found


def _superseded(reading: ParsedSource, directory: DirectoryReader) -> Iterator[tuple[Membership, int]]:
    """What was imported for an enrollment that says something else by now, and the line that does."""
    touched = {each.mutation.key for each in reading.mutations}
    for versioned in directory.read_memberships(source=SOURCE):
        held = versioned.entity
        named = reading.named.get(held.source_ref)
        if named is not None and held.key not in named and held.key not in touched:
            yield held, next(iter(named.values()))
