"""`authz list-resources`, `list-subjects` and `plan`: what a subject may act upon, and who may act."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Annotated

import msgspec
import typer

from authz.cli.check import Purpose, Stated, reason_text
from authz.cli.command import Context, on_server
from authz.cli.known_subjects import note_if_unknown
from authz.cli.options import Action, AskedResource, AsOf, OnlyContentWithin, Who
from authz.cli.output import print_json, time_text
from authz.domain.ids import course_scope, session_scope
from authz.domain.lists import PlanKind

_SHOWN = 5
"""How many courses and sessions of a group are printed."""


@on_server()
def list_resources(
    context: Context,
    subject: Who,
    action: Action,
    types: Annotated[
        list[str] | None,
        typer.Argument(metavar="TYPE", help="Such as notebook. Default: every type with the action."),
    ] = None,
    scope: OnlyContentWithin = None,
    purpose: Purpose = "",
) -> None:
    """List the resources on which a subject may perform an action: all that `check` allows."""
    found = context.client.list_resources(
        subject,
        action,
        *(types or ()),
        scope=scope,
        purpose=purpose,
        on_unlisted=_say_why,
    )
    if not _print(context, found, ("resource", "course_id", "session_id")):
        note_if_unknown(context.client, subject)


@on_server()
def plan(
    context: Context,
    subject: Who,
    action: Action,
    type_name: Annotated[str, typer.Argument(metavar="TYPE", help="Such as notebook.")],
    scope: OnlyContentWithin = None,
    purpose: Purpose = "",
) -> None:
    """Print the result of `list-resources` as a condition on the fields of resources."""
    found = context.client.plan_resources(subject, action, type_name, scope=scope, purpose=purpose)
    if found.kind is PlanKind.NEVER:
        if found.reason is not None:
            _say_why(found.reason)
        note_if_unknown(context.client, subject)
    if context.as_json:
        print_json(found)
        return
    until = f"  until {time_text(found.valid_until)}" if found.valid_until else ""
    print(f"{found.kind.lower()}{until}")
    for group in found.groups:
        scopes = [*map(course_scope, group.course_ids), *map(session_scope, group.session_ids)]
        more = f" and {len(scopes) - _SHOWN} more" if len(scopes) > _SHOWN else ""
        print(f"in {', '.join(map(str, scopes[:_SHOWN]))}{more}: {group.predicate or 'all'}")


@on_server()
def list_subjects(
    context: Context, action: Action, resource: AskedResource, stated: Stated, as_of: AsOf = None
) -> None:
    """List the subjects that may perform an action on a resource, and by which membership and rule."""
    found = context.client.list_subjects(
        action,
        resource,
        **stated,
        as_of=as_of,
        on_unlisted=lambda reason: print(f"nobody may: {reason_text(reason)}", file=sys.stderr),
    )
    _print(context, found, ("subject", "role", "scope", "rule"))


def _say_why(reason: str) -> None:
    print(f"nothing is listed: {reason_text(reason)}", file=sys.stderr)


def _print(context: Context, found: Iterable[msgspec.Struct], columns: tuple[str, ...]) -> int:
    return context.show(columns, found, lambda each: [getattr(each, name) for name in columns])
