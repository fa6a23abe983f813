"""`authz course create`, `update`, `delete`: write one course."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from authz.cli.command import Context, OptionGroup, on_server
from authz.cli.options import Yes, given, updated
from authz.domain.entities import Course, CourseFilter, CourseKey, CourseState
from authz.domain.instants import US_PER_S
from authz.domain.mutations import Mutation, Operation

app = typer.Typer(help="Create, update or delete a course.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(metavar="COURSE", help="The id of the course.")]
State = Annotated[CourseState | None, typer.Option(case_sensitive=False, help="The lifecycle state.")]
Ai = Annotated[bool | None, typer.Option("--ai/--no-ai", help="Whether AI features may process content.")]
EditWindow = Annotated[
    int | None,
    typer.Option("--edit-window-s", min=0, help="Seconds in which an author may change a message."),
]


def _values(state: State = None, ai: Ai = None, edit_window_s: EditWindow = None) -> dict[str, Any]:
    window_us = None if edit_window_s is None else edit_window_s * US_PER_S
    return given(state=state, ai_enabled=ai, edit_window_us=window_us)


Values = Annotated[dict[str, Any], OptionGroup(_values)]


@on_server(app, writes=True, creates=True)
def create(context: Context, course: Id, values: Values) -> None:
    """Create a course: by default, a draft without AI."""
    context.write([Mutation(Operation.CREATE, Course(id=course, **values))], CourseFilter(ids=(course,)))


@on_server(app, "update", writes=True)
def change(context: Context, course: Id, values: Values) -> None:
    """Change what the options name; the rest stays as it is."""
    context.write([updated(CourseKey(course), values)], CourseFilter(ids=(course,)))


@on_server(app, writes=True)
def delete(context: Context, course: Id, yes: Yes = False) -> None:
    """Delete a course with its sessions, members and content. To keep these, set its state to ARCHIVED."""
    context.delete(CourseKey(course), confirmed=yes)
