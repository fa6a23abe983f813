"""`authz check` and `authz actions`: ask, and show the answer with its reason."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from authz.cli.connection import DEFAULT_ADDRESS, Address, Database, connect
from authz.cli.output import print_rows

Course = Annotated[str, typer.Option("--course", help="The course that it is in, or to create in.")]
Session = Annotated[str, typer.Option("--session", help="The session that it is in, or to create in.")]
Purpose = Annotated[str, typer.Option("--purpose", help="Empty, or ai_response.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON; times are microseconds since 1970, UTC.")]

DENIED_EXIT_CODE = 1


def check(
    subject: Annotated[str, typer.Argument(help="user:<id> or service:<id>.")],
    action: Annotated[str, typer.Argument(help="Such as read.")],
    resource: Annotated[str, typer.Argument(help="<type>:<id>, or just the type to create one.")],
    course: Course = "",
    session: Session = "",
    purpose: Purpose = "",
    address: Address = DEFAULT_ADDRESS,
    database: Database = "",
    as_json: Json = False,
) -> None:
    """May this subject do this? Exit code 0 allowed, 1 denied, 2 error."""
    with connect(address, database) as client:
        answer = client.check(
            subject, action, resource, course_id=course, session_id=session, purpose=purpose
        )
    if as_json:
        print(msgspec.json.encode(answer).decode())
    else:
        detail = answer.membership_state or ", ".join(answer.unmet_facts)
        reason = f"{answer.reason} ({detail})" if detail else answer.reason
        print(f"{'allowed' if answer.allowed else 'denied'}  {reason}")
        for label, value in (("rule", answer.rule), ("valid until", answer.valid_until)):
            if value:
                print(f"{label}: {value}")
    if not answer.allowed:
        raise typer.Exit(DENIED_EXIT_CODE)


def actions(
    subject: Annotated[str, typer.Argument(help="user:<id> or service:<id>.")],
    resource: Annotated[str, typer.Argument(help="<type>:<id>, or just the type for create.")],
    course: Course = "",
    session: Session = "",
    purpose: Purpose = "",
    address: Address = DEFAULT_ADDRESS,
    database: Database = "",
    as_json: Json = False,
) -> None:
    """What may this subject do with this resource?"""
    with connect(address, database) as client:
        answers = client.list_actions(
            subject, resource, course_id=course, session_id=session, purpose=purpose
        )
    if as_json:
        print(msgspec.json.encode(answers).decode())
    else:
        print_rows(("action", "answer"), [(a, "allowed" if ok else "denied") for a, ok in answers.items()])
