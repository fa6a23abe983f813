"""`authz share add`, `remove`: open one resource to one subject, and close it."""

from __future__ import annotations

from typing import Annotated

import typer

from authz.cli.command import Context, on_server
from authz.cli.options import What, Who
from authz.domain.entities import Share, ShareFilter, ShareKey, ShareLevel
from authz.domain.mutations import Mutation, Operation

app = typer.Typer(help="Add or remove a share.", no_args_is_help=True)

Level = Annotated[ShareLevel, typer.Option(case_sensitive=False, help="An editor may also view.")]

Awaits = Annotated[
    bool,
    typer.Option(
        "--awaits-membership", help="Share even without a membership; the share takes effect with one."
    ),
]


@on_server(app, writes=True)
def add(
    context: Context, what: What, who: Who, level: Level = ShareLevel.VIEWER, awaits: Awaits = False
) -> None:
    """Share a resource with a subject, or change the share."""
    share = Share(resource=what, subject=who, level=level, awaits_membership=awaits)
    context.write([Mutation(Operation.TOUCH, share)], ShareFilter(resource=what, subject=who))


@on_server(app, writes=True)
def remove(context: Context, what: What, who: Who) -> None:
    """Stop sharing a resource with a subject."""
    key = ShareKey(what, who)
    context.delete(key, confirmed=True)
