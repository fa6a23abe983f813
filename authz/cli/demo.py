"""`authz demo`: loads a small campus into a real server and asks it questions through the client."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import typer
from rich.table import Table

from authz.cli.demo_campus import QUESTIONS, ExpectedAnswer, campus
from authz.cli.output import out
from authz.client import Answer, Client
from authz.domain.mutations import Mutation, Operation


def demo() -> None:
    """Start a server, load a campus, ask questions, print each answer with its reason, stop."""
    from authz.cli.connection import embedded
    from authz.runtime.settings import load_settings

    with tempfile.TemporaryDirectory() as folder:
        settings = load_settings(
            {
                "address": "127.0.0.1:0",
                "database_url": f"sqlite:///{Path(folder) / 'demo.db'}",
                "log_level": "error",
            },
            environ={},
        )
        with embedded(settings) as address, Client(address) as client:
            out.print(f"serving at {address}")
            entities = campus(time.time_ns() // 1000)
            token = client.write([Mutation(Operation.CREATE, e) for e in entities], reason="demo")
            out.print(f"wrote {len(entities)} entities in one transaction\n")
            answers = [(asked, _ask(client, asked, token)) for asked in QUESTIONS]
    out.print(_table(answers))
    wrong = [asked for asked, answer in answers if answer.reason != asked.reason]
    out.print(f"{len(answers)} questions, {len(answers) - len(wrong)} answered as expected")
    if wrong:
        raise typer.Exit(1)


def _ask(client: Client, asked: ExpectedAnswer, token: str) -> Answer:
    return client.check(
        asked.subject,
        asked.action,
        asked.resource,
        course_id=asked.course_id,
        purpose=asked.purpose,
        at_least_as_fresh=token,
    )


def _because(answer: Answer) -> str:
    if answer.unmet_facts:
        return f"not {', '.join(answer.unmet_facts)}"
    return answer.membership_state or answer.rule.removeprefix("p, ")


def _table(answers: list[tuple[ExpectedAnswer, Answer]]) -> Table:
    table = Table(header_style="bold")
    table.add_column("question", overflow="fold")
    table.add_column("answer", no_wrap=True)
    table.add_column("reason", no_wrap=True)
    table.add_column("because", overflow="fold")
    for asked, answer in answers:
        question = f"{asked.subject} {asked.action} {asked.resource}"
        if asked.course_id:
            question += f" (in {asked.course_id})"
        if asked.purpose:
            question += f" (for {asked.purpose})"
        because = _because(answer)
        verdict = "[green]allowed[/]" if answer.allowed else "[red]denied[/]"
        table.add_row(question, verdict, answer.reason, because)
    return table
