"""`authz demo`: loads a small campus into a real server and asks it questions through the client."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import typer

from authz.cli.output import print_rows
from authz.client import Answer, Client
from authz.domain.entities import Entity, Resource
from authz.domain.mutations import Mutation, Operation

if TYPE_CHECKING:
    from authz.policy.cases import Case, CaseFile

_FILE = Path(__file__).with_name("demo.toml")


def demo() -> None:
    """Start a server, load a campus, ask questions, print each answer with its reason, stop."""
    from authz.runtime.embedded import embedded
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
            print(f"serving at {address}")
            campus = _load()
            entities = [_created_now(each) for each in campus.entities]
            client.write([Mutation(Operation.CREATE, e) for e in entities], reason="demo")
            print(f"wrote {len(entities)} entities in one transaction\n")
            answers = [(case, _ask(client, case)) for case in campus.cases]
    columns = ("question", "answer", "reason", "because")
    print_rows(columns, [_row(case, answer) for case, answer in answers])
    wrong = [case for case, answer in answers if answer.reason != case.reason]
    print(f"{len(answers)} questions, {len(answers) - len(wrong)} answered as expected")
    if wrong:
        raise typer.Exit(1)


def _load() -> CaseFile:
    from authz.policy.cases import read_case_file
    from authz.policy.load import load_policy, policy_directory

    return read_case_file(_FILE.name, _FILE.read_text(), load_policy(policy_directory()).vocabulary)


def _created_now(entity: Entity) -> Entity:
    """A message can be edited only for a while after it was created: the one of the file is new."""
    if isinstance(entity, Resource) and entity.created_at is not None:
        return msgspec.structs.replace(entity, created_at=time.time_ns() // 1000)
    return entity


def _resource_of(case: Case) -> str:
    resource = case.question.resource
    return str(resource) if resource.id else resource.type


def _ask(client: Client, case: Case) -> Answer:
    asked = case.question
    return client.check(
        str(asked.subject),
        asked.action,
        _resource_of(case),
        course_id=asked.stated_course_id,
        purpose=asked.purpose,
    )


def _row(case: Case, answer: Answer) -> tuple[str, ...]:
    asked = case.question
    question = f"{asked.subject} {asked.action} {_resource_of(case)}"
    if asked.stated_course_id:
        question += f" (in {asked.stated_course_id})"
    if asked.purpose:
        question += f" (for {asked.purpose})"
    because = answer.detail or answer.rule.removeprefix("p, ")
    return question, "allowed" if answer.allowed else "denied", answer.reason, because
