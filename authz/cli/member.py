"""`authz member add`, `update`, `suspend`, `restore`, `remove`: the members of one scope."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import typer

from authz.cli.command import Context, OptionGroup, on_server
from authz.cli.options import (
    OnlyRole,
    StartsAt,
    Until,
    Where,
    Who,
    given,
    given_times,
    require_future,
    suspension_end,
    updated,
)
from authz.client import Client
from authz.domain.entities import Membership, MembershipFilter, MembershipKey, MembershipStatus
from authz.domain.errors import malformed, precondition_failed
from authz.domain.ids import Scope, Subject
from authz.domain.instants import format_instant
from authz.domain.mutations import Mutation, Operation, update

app = typer.Typer(help="Add, update, suspend, restore or remove a member.", no_args_is_help=True)

Role = Annotated[str, typer.Argument(metavar="ROLE", help="Such as student.")]
Status = Annotated[MembershipStatus | None, typer.Option(case_sensitive=False, help="The status.")]

Everything = Annotated[
    bool,
    typer.Option(
        "--everything", help="Also the memberships in the sessions of a course, and what is shared there."
    ),
]

_ACTIVE, _SUSPENDED = MembershipStatus.ACTIVE, MembershipStatus.SUSPENDED


def _values(starts_at: StartsAt = "", ends_at: Until = "", status: Status = None) -> dict[str, Any]:
    return given(status=status) | given_times(starts_at=starts_at, ends_at=ends_at)


Values = Annotated[dict[str, Any], OptionGroup(_values)]


@on_server(app, writes=True)
def add(context: Context, who: Who, where: Where, role: Role, values: Values) -> None:
    """Give a subject a role in a scope."""
    end = values.get("ends_at")
    # Only a completed membership gives a role after its end.
    if end is not None and values.get("status") is not MembershipStatus.COMPLETED:
        require_future(context.client, end, format_instant(end), option="--until")
    new = Membership(subject=who, scope=where, role=role, **values)
    context.write([Mutation(Operation.CREATE, new)], _membership_filter(who, where))


@on_server(app, "update", writes=True)
def change(context: Context, who: Who, where: Where, role: Role, values: Values) -> None:
    """Change the dates or the status of one membership; the rest stays. The time `none` removes a date."""
    mutation = updated(MembershipKey(who, where, role), values)
    context.write([mutation], _membership_filter(who, where))


@on_server(app, writes=True)
def suspend(context: Context, who: Who, where: Where, until: Until = "", role: OnlyRole = "") -> None:
    """Take away every role in a scope, and in the sessions of a course, until a time or without end."""
    wanted, end = _membership_filter(who, where, role), suspension_end(context.client, until)
    held = _memberships_of(context.client, wanted)
    if end is not None:
        mutations = [update(each.key, suspended_until=end) for each in held]
    else:
        mutations = _suspended_without_end(held)
    context.write(mutations, wanted)


def _suspended_without_end(held: list[Membership]) -> list[Mutation]:
    """Suspend active memberships. One with another status would not get that status back (`restore`)."""
    if not any(each.status in (_ACTIVE, _SUSPENDED) for each in held):
        raise precondition_failed(
            f"{held[0].key} is {held[0].status.value}; suspend it until a time, with `--until`, or remove it"
        )
    return [_suspended_by_hand(each) for each in held if each.status in (_ACTIVE, _SUSPENDED)]


def _suspended_by_hand(membership: Membership) -> Mutation:
    """Suspend a membership, also one that a roster suspends already, which its next import could lift."""
    from authz.importers.oneroster.source_ref import parse_source_ref

    ref = parse_source_ref(membership.source_ref)
    values: dict[str, Any] = {"status": _SUSPENDED}
    if ref.is_suspended:
        values["source_ref"] = str(
            msgspec.structs.replace(ref, suspended_by_row=False, suspended_by_user=False)
        )
    return update(membership.key, **values)


@on_server(app, writes=True)
def restore(context: Context, who: Who, where: Where, role: OnlyRole = "") -> None:
    """End every suspension of a subject in a scope. That of an account stays."""
    wanted = _membership_filter(who, where, role)
    mutations = [
        update(each.key, status=_ACTIVE if each.status is _SUSPENDED else each.status, suspended_until=None)
        for each in _memberships_of(context.client, wanted)
    ]
    context.write(mutations, wanted)


@on_server(app, writes=True)
def remove(
    context: Context, who: Who, where: Where, role: OnlyRole = "", everything: Everything = False
) -> None:
    """Remove the memberships of a subject in a scope. Those in the sessions of a course stay."""
    if everything:
        if role:
            raise malformed("--everything", "takes no `--role`: it removes every role; leave one of them out")
        context.client.remove_member(who, where, reason=context.reason)
        removed = {"subject": who, "scope": where, "everything": True}
        context.print_deleted(removed, f"removed {who} from {where} and all that is in it")
        return
    held = _memberships_of(context.client, _membership_filter(who, where, role))
    context.client.write([Mutation(Operation.DELETE, each.key) for each in held], reason=context.reason)
    for each in held:
        context.print_deleted(each.key, f"deleted {each.key}")


def _membership_filter(who: Subject, where: Scope, role: str = "") -> MembershipFilter:
    """The memberships of a subject in a scope, or only that with a role."""
    return MembershipFilter(subject=who, scope=where, role=role or None)


def _memberships_of(client: Client, wanted: MembershipFilter) -> list[Membership]:
    """The memberships that are found, at least one."""
    held = [each.entity for each in client.read(wanted)]
    if not held:
        role = f" as {wanted.role}" if wanted.role else ""
        raise precondition_failed(
            f"{wanted.subject} has no membership in {wanted.scope}{role};"
            f" list them with `authz memberships --subject {wanted.subject}`"
        )
    return held
