"""`authz session create`, `update`, `delete`: write one session."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from authz.cli.command import Context, OptionGroup, on_server
from authz.cli.options import StartsAt, Until, Yes, given, given_times, parsed_option, updated
from authz.domain.entities import Session, SessionFilter, SessionKey, SessionState
from authz.domain.ids import parse_id
from authz.domain.mutations import Mutation, Operation

app = typer.Typer(help="Create, update or delete a session.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="SESSION", help="The id of the session.")]
Course = Annotated[
    str | None, parsed_option("--course", "COURSE", parse_id, "The id of the course that it is in, for good.")
]
State = Annotated[SessionState | None, typer.Option(case_sensitive=False, help="The lifecycle state.")]
Open = Annotated[
    bool | None,
    typer.Option("--open/--closed", help="Whether everybody with a role in the course may attend."),
]


def _values(
    state: State = None, starts_at: StartsAt = "", ends_at: Until = "", is_open: Open = None
) -> dict[str, Any]:
    return given(state=state, open_to_course=is_open) | given_times(starts_at=starts_at, ends_at=ends_at)


Values = Annotated[dict[str, Any], OptionGroup(_values)]


@on_server(app, writes=True)
def create(context: Context, session: Id, course: Course = None, *, values: Values) -> None:
    """Create a session: by default, scheduled and closed."""
    new = Mutation(Operation.CREATE, Session(id=session, course_id=course, **values))
    context.write([new], SessionFilter(ids=(session,)))


@on_server(app, "update", writes=True)
def change(context: Context, session: Id, values: Values) -> None:
    """Change what the options name; the rest stays as it is. The time `none` removes a date."""
    context.write([updated(SessionKey(session), values)], SessionFilter(ids=(session,)))


@on_server(app, writes=True)
def delete(context: Context, session: Id, yes: Yes = False) -> None:
    """Delete a session with its members and content. To keep these, set its state to ENDED."""
    context.delete(SessionKey(session), confirmed=yes)
