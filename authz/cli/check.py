"""`authz check` and `authz actions`: ask a question and print the answer with its reason."""

from __future__ import annotations

import datetime as dt
from typing import Annotated

import typer

from authz.cli.command import Server, on_server
from authz.cli.output import print_json, print_rows, time_text
from authz.client import Answer
from authz.domain.instants import parse_instant, to_datetime

Course = Annotated[str, typer.Option("--course", help="Course of the resource, or to create it in.")]
Session = Annotated[str, typer.Option("--session", help="Session of the resource, or to create it in.")]
AsOf = Annotated[
    str,
    typer.Option(
        "--as-of",
        help="Another time, like 2026-12-31: later by the records as they are, earlier as they were then.",
    ),
]
Purpose = Annotated[str, typer.Option("--purpose", help="Empty, or ai_response.")]

DENIED_EXIT_CODE = 1


@on_server()
def check(
    server: Server,
    subject: Annotated[str, typer.Argument(help="user:<id> or service:<id>.")],
    action: Annotated[str, typer.Argument(help="For example read.")],
    resource: Annotated[str, typer.Argument(help="<type>:<id>, or only the type for create.")],
    course: Course = "",
    session: Session = "",
    purpose: Purpose = "",
) -> None:
    """Check one action on one resource. Exit code: 0 allowed, 1 denied, 2 error."""
    answer = server.client.check(
        subject, action, resource, course_id=course, session_id=session, purpose=purpose
    )
    if server.as_json:
        print_json(answer)
    else:
        print(answer_line(answer))
        for label, value in (("rule", answer.rule), ("valid until", time_text(answer.valid_until))):
            if value:
                print(f"{label}: {value}")
    if not answer.allowed:
        raise typer.Exit(DENIED_EXIT_CODE)


def time_of(as_of: str) -> dt.datetime | None:
    """The time of an option, if it is given."""
    return to_datetime(parse_instant(as_of, field="--as-of")) if as_of else None


def answer_line(answer: Answer) -> str:
    """An answer with its reason, as a line."""
    detail = answer.membership_state or ", ".join(answer.unmet_facts)
    reason = f"{answer.reason} ({detail})" if detail else answer.reason
    return f"{'allowed' if answer.allowed else 'denied'}  {reason}"


@on_server()
def actions(
    server: Server,
    subject: Annotated[str, typer.Argument(help="user:<id> or service:<id>.")],
    resource: Annotated[str, typer.Argument(help="<type>:<id>, or only the type for create.")],
    course: Course = "",
    session: Session = "",
    purpose: Purpose = "",
) -> None:
    """List the actions on a resource, and whether the subject may perform each."""
    answers = server.client.list_actions(
        subject, resource, course_id=course, session_id=session, purpose=purpose
    )
    if server.as_json:
        print_json(answers)
    else:
        print_rows(("action", "answer"), [(a, "allowed" if ok else "denied") for a, ok in answers.items()])
