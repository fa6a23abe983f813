"""Keeps what a roster does not know when it is imported again."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from authz.client import Client
from authz.domain.entities import Course, Membership, MembershipStatus
from authz.domain.mutations import Mutation, Operation
from authz.roster.files import Sourced

_KEPT = (MembershipStatus.SUSPENDED, MembershipStatus.COMPLETED)


def keep_unrostered(sourced: Iterable[Sourced], client: Client) -> list[Sourced]:
    """The same mutations in the same order, with each course that is there as it is there.

    A roster says that a class exists, not that it is archived or may use AI; and a membership that was
    suspended or completed is not made active by still being on the roster. What changes between this
    look and the import is overwritten.
    """
    courses = {versioned.entity.id: versioned.entity for versioned in client.read_courses()}
    held = (versioned.entity for versioned in client.read_memberships(statuses=_KEPT))
    statuses = {membership.key: membership.status for membership in held}
    kept: list[Sourced] = []
    for each in sourced:
        target = each.mutation.target
        if each.mutation.operation is Operation.TOUCH and isinstance(target, Course):
            target = courses.get(target.id, target)
        elif isinstance(target, Membership) and target.key in statuses:
            target = msgspec.structs.replace(target, status=statuses[target.key])
        kept.append(Sourced(Mutation(each.mutation.operation, target), each.file, each.line))
    return kept
