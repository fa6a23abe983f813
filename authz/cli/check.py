"""`authz check` and `authz actions`: ask a question and print the answer with its reason."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from authz.cli.command import Context, OptionGroup, on_server
from authz.cli.known_subjects import note_of_denial
from authz.cli.options import Action, AskedResource, Who
from authz.cli.output import print_json, print_rows, time_text
from authz.client import Answer
from authz.domain.decisions import Reason

Course = Annotated[
    str | None,
    typer.Option("--course", help="The id of the course that the resource is in, or is to be created in."),
]
Session = Annotated[
    str | None, typer.Option("--session", help="The id of the session that it is in, or is to be created in.")
]
Purpose = Annotated[str, typer.Option("--purpose", help="Empty, or ai_response.")]


def _stated(course: Course = None, session: Session = None, purpose: Purpose = "") -> dict[str, Any]:
    return {"course_id": course, "session_id": session, "purpose": purpose}


Stated = Annotated[dict[str, Any], OptionGroup(_stated)]
"""Where the resource of a question is, and the purpose, as arguments of a client."""

DENIED_EXIT_CODE = 1


@on_server()
def check(context: Context, subject: Who, action: Action, resource: AskedResource, stated: Stated) -> None:
    """Check one action on one resource. Exit code: 0 allowed, 1 denied, 2 error."""
    answer = context.client.check(subject, action, resource, **stated)
    if context.as_json:
        print_json(answer)
    else:
        print(answer_line(answer))
        for label, value in (("rule", answer.rule), ("valid until", time_text(answer.valid_until))):
            if value:
                print(f"{label}: {value}")
    note_of_denial(context.client, answer.reason, subject, stated)
    if not answer.allowed:
        raise typer.Exit(DENIED_EXIT_CODE)


def answer_line(answer: Answer) -> str:
    """An answer with its reason, as a line."""
    return f"{'allowed' if answer.allowed else 'denied'}  {reason_text(answer.reason, answer.detail)}"


def reason_text(reason: str, detail: str = "") -> str:
    """A reason, with what it is about where its name does not say it."""
    if reason == Reason.RESOURCE_UNKNOWN:
        detail = "the resource, its course or its session is not registered"
    return f"{reason} ({detail})" if detail else str(reason)


@on_server()
def actions(context: Context, subject: Who, resource: AskedResource, stated: Stated) -> None:
    """List the actions on a resource, whether the subject may perform each, and why."""
    found = context.client.list_actions(subject, resource, **stated)
    if context.as_json:
        print_json(found)
    else:
        rows = [
            (action, "allowed" if answer else "denied", answer.reason)
            for action, answer in found.actions.items()
        ]
        print_rows(("action", "answer", "reason"), rows)
    reasons = {answer.reason for answer in found.actions.values()}
    if len(reasons) == 1:
        note_of_denial(context.client, reasons.pop(), subject, stated)
