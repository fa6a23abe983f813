"""`authz member suspend`, `restore`: shut a subject out of a scope, and let it in again."""

from __future__ import annotations

from typing import Annotated

import typer

from authz.cli.command import Server, on_server
from authz.cli.options import Until, Where, Who, given_times
from authz.client import Client
from authz.domain.entities import Membership, MembershipFilter, MembershipStatus
from authz.domain.errors import ErrorReason, FailedPreconditionError
from authz.domain.ids import Scope, Subject
from authz.domain.mutations import Mutation, update

OnlyRole = Annotated[
    str, typer.Option("--role", help="Only this role; else every role of the subject there.")
]

_ACTIVE, _SUSPENDED = MembershipStatus.ACTIVE, MembershipStatus.SUSPENDED


@on_server(writes=True)
def suspend(server: Server, who: Who, where: Where, until: Until = "", role: OnlyRole = "") -> None:
    """Take every role in a scope, and in the sessions of a course, away: until a time or without end."""
    wanted, end = membership_filter(who, where, role), given_times(ends_at=until).get("ends_at")
    held = memberships_of(server.client, wanted)
    if end is not None:
        mutations = [update(each.key, suspended_until=end) for each in held]
    else:
        mutations = _suspended_without_end(held)
    server.write(mutations, wanted)


def _suspended_without_end(held: list[Membership]) -> list[Mutation]:
    """Suspend active memberships. One with another status would not get that status back (`restore`)."""
    if not any(each.status in (_ACTIVE, _SUSPENDED) for each in held):
        raise FailedPreconditionError(
            ErrorReason.PRECONDITION_FAILED,
            f"{held[0].key} is {held[0].status.value}; suspend it until a time, with `--until`, or remove it",
        )
    return [update(each.key, status=_SUSPENDED) for each in held if each.status is _ACTIVE]


@on_server(writes=True)
def restore(server: Server, who: Who, where: Where, role: OnlyRole = "") -> None:
    """End every suspension of a subject in a scope. That of an account stays."""
    wanted = membership_filter(who, where, role)
    mutations = [
        update(each.key, status=_ACTIVE if each.status is _SUSPENDED else each.status, suspended_until=None)
        for each in memberships_of(server.client, wanted)
    ]
    server.write(mutations, wanted)


def membership_filter(who: Subject, where: Scope, role: str = "") -> MembershipFilter:
    """The memberships of a subject in a scope, or only that with a role."""
    return MembershipFilter(subject=who, scope=where, role=role or None)


def memberships_of(client: Client, wanted: MembershipFilter) -> list[Membership]:
    """The memberships that are found, at least one."""
    held = [each.entity for each in client.read(wanted)]
    if not held:
        role = f" as {wanted.role}" if wanted.role else ""
        raise FailedPreconditionError(
            ErrorReason.PRECONDITION_FAILED,
            f"{wanted.subject} has no membership in {wanted.scope}{role};"
            f" list them with `authz memberships --subject {wanted.subject}`",
        )
    return held
