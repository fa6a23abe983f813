"""`authz resource create`, `update`, `delete`: write one resource. Services write their own by the API."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from authz.cli.command import Context, OptionGroup, on_server
from authz.cli.options import StartsAt, Until, What, Yes, given, given_times, parsed_option, updated
from authz.domain.entities import Resource, ResourceFilter, Visibility
from authz.domain.ids import ResourceRef, Scope, Subject, parse_scope, parse_subject
from authz.domain.mutations import Mutation, Operation

app = typer.Typer(help="Create, update or delete a resource.", no_args_is_help=True)

Home = Annotated[
    Scope, typer.Argument(metavar="SCOPE", parser=parse_scope, help="course:<id> or session:<id>.")
]
Owner = Annotated[
    Subject | None, parsed_option("--owner", "SUBJECT", parse_subject, "The owner, user:<id>. Default: none.")
]
Visible = Annotated[
    Visibility | None,
    typer.Option("--visibility", case_sensitive=False, help="Who else may read it, as the policy says."),
]
Published = Annotated[bool | None, typer.Option("--published/--unpublished", help="Whether it is published.")]
Locked = Annotated[bool | None, typer.Option("--locked/--unlocked", help="Whether nobody may change it.")]
Ai = Annotated[bool | None, typer.Option("--ai/--no-ai", help="Whether AI features may process content.")]


def _values(
    owner: Owner = None,
    visibility: Visible = None,
    published: Published = None,
    starts_at: StartsAt = "",
    ends_at: Until = "",
    locked: Locked = None,
    ai: Ai = None,
) -> dict[str, Any]:
    times = given_times(starts_at=starts_at, ends_at=ends_at)
    names = {"starts_at": "available_from", "ends_at": "available_until"}
    options = given(owner=owner, visibility=visibility, published=published, locked=locked, ai_allowed=ai)
    return options | {names[name]: time for name, time in times.items()}


Values = Annotated[dict[str, Any], OptionGroup(_values)]


def _only(resource: ResourceRef) -> ResourceFilter:
    return ResourceFilter(type=resource.type, ids=(resource.id,))


@on_server(app, writes=True)
def create(context: Context, resource: What, where: Home, values: Values) -> None:
    """Register a resource in a course or session: by default private, unpublished and without AI."""
    new = Resource(type=resource.type, id=resource.id, scope=where, **values)
    context.write([Mutation(Operation.CREATE, new)], _only(resource))


@on_server(app, "update", writes=True)
def change(context: Context, resource: What, values: Values) -> None:
    """Change what the options name; the rest stays as it is. The time `none` removes a date."""
    context.write([updated(resource, values)], _only(resource))


@on_server(app, writes=True)
def delete(context: Context, resource: What, yes: Yes = False) -> None:
    """Delete a resource with its shares. Its id cannot be described in requests any more."""
    context.delete(resource, confirmed=yes)
