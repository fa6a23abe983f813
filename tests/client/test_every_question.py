"""Every question about the same subject, action and resource has the same answer, as a client gets it.

On random campuses of a running server: states, dates, shares, suspended accounts, policies of courses, and
the purposes. `Check` is what the others are compared with.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import pytest
from sqlalchemy import create_engine

from authz.client import Answer, CallError, Client, check_request
from authz.client.questions import ResourceActions
from authz.domain.entities import (
    Account,
    AccountStatus,
    Course,
    CourseFilter,
    Entity,
    Membership,
    PolicyVersion,
    Resource,
    ResourceFilter,
    Session,
    SessionFilter,
    Share,
    ShareFilter,
)
from authz.domain.files import read_files
from authz.domain.ids import course_scope
from authz.domain.mutations import Mutation, Operation
from authz.runtime.embedded import embedded
from authz.runtime.settings import load_settings
from tests.client.caller_tables import METADATA, keep
from tests.client.random_campus import PEOPLE, crowded
from tests.client.test_plans import filtered
from tests.engine.test_isolation import COURSES, NOW
from tests.policies import POLICY
from tests.properties import LONG

Cell: TypeAlias = tuple[str, str, str]
"""A subject, an action and a resource, such as `user:a`, `read`, `notebook:r1`."""
ACTIONS = {
    name: [action for action in declared.actions if action != "create"]
    for name, declared in POLICY.vocabulary.resource_types.items()
}
EVERY_ACTION = sorted({action for actions in ACTIONS.values() for action in actions})
EXPLAINED = 100
"""Of the questions on each campus: an explanation looks for what would allow."""


@contextmanager
def campus_of(folder: Path, chance: random.Random) -> Iterator[tuple[Client, list[Entity]]]:
    """A client of a server that holds a random campus, at the time of the campus, and its records."""
    made = crowded(chance)
    teacher = Membership(subject=PEOPLE[0], scope=course_scope(COURSES[0]), role="teacher")
    suspended = Account(subject=chance.choice(PEOPLE[1:]), status=chance.choice([*AccountStatus]))
    given: dict[str, Any] = {
        "address": "127.0.0.1:0",
        "database_url": f"sqlite:///{folder / 'authz.db'}",
        "log_level": "error",
    }
    with ExitStack() as stack:
        settings = load_settings(given, environ={})
        client = stack.enter_context(Client(stack.enter_context(embedded(settings, clock=lambda: NOW))))
        # What the service refuses, such as a visibility that a course does not have, is left out.
        for kind in (Course, Session, Membership, Account, Resource, Share):
            client.import_mutations(
                Mutation(Operation.TOUCH, _awaiting(each))
                for each in (*made, teacher, suspended)
                if isinstance(each, kind)
            )
        for version in (each for each in made if isinstance(each, PolicyVersion)):
            with suppress(CallError):  # rows that break an invariant
                client.policies.apply(read_files(version.files), course_id=version.scope.id)
        kept = (CourseFilter(), SessionFilter(), ResourceFilter(), ShareFilter())
        yield client, [found.entity for each in kept for found in client.read(each)]


def _awaiting(entity: Entity) -> Entity:
    """A share needs no membership yet."""
    return msgspec.structs.replace(entity, awaits_membership=True) if isinstance(entity, Share) else entity


def names_of(entities: Iterable[Entity]) -> list[str]:
    """Everything that a question may be about."""
    kinds = {Course: "course", Session: "session"}
    return [
        str(each.key) if isinstance(each, Resource) else f"{kinds[type(each)]}:{each.id}"
        for each in entities
        if isinstance(each, Resource | Course | Session)
    ]


def type_of(name: str) -> str:
    return name.partition(":")[0]


def checked(client: Client, names: list[str], purpose: str) -> dict[Cell, Answer]:
    """The answer of a check to every question."""
    cells = [
        (str(person), action, name)
        for person in PEOPLE
        for name in names
        for action in ACTIONS[type_of(name)]
    ]
    answers = client.batch_check(check_request(*cell, purpose=purpose) for cell in cells)
    return {cell: each for cell, each in zip(cells, answers, strict=True) if isinstance(each, Answer)}


def by_actions(client: Client, names: list[str], purpose: str) -> Iterator[Cell]:
    for person in map(str, PEOPLE):
        listed = client.batch_list_actions(person, names, purpose=purpose)
        for name, found in zip(names, listed, strict=True):
            assert isinstance(found, ResourceActions)
            yield from ((person, action, name) for action, each in found.actions.items() if each)


def by_resources(client: Client, _: list[str], purpose: str) -> Iterator[Cell]:
    for person in map(str, PEOPLE):
        for action in EVERY_ACTION:
            for found in client.list_resources(person, action, purpose=purpose):
                yield person, action, found.resource


def by_subjects(client: Client, names: list[str], purpose: str) -> Iterator[Cell]:
    for name in names:
        for action in ACTIONS[type_of(name)]:
            for found in client.list_subjects(action, name, purpose=purpose):
                yield found.subject, action, name


def by_plans(client: Client, entities: list[Entity], purpose: str) -> Iterator[Cell]:
    """What the plans find in a table of the caller's."""
    engine = create_engine("sqlite://")
    METADATA.create_all(engine)
    with engine.begin() as connection:
        keep(connection, entities)
        for person in PEOPLE:
            plans = {
                (type_name, action): client.plan_resources(person, action, type_name, purpose=purpose)
                for type_name, actions in ACTIONS.items()
                for action in actions
            }
            for (_, action), found in filtered(connection, person, plans).items():
                yield from ((str(person), action, name) for name in found)
    engine.dispose()


@pytest.mark.parametrize("seed", range(100 if LONG else 7))
def test_every_question_has_the_answer_of_a_check(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    purpose = "" if seed % 3 else "ai_response"
    with campus_of(tmp_path, chance) as (client, entities):
        names = names_of(entities)
        answers = checked(client, names, purpose)
        allowed = {cell for cell, answer in answers.items() if answer}
        assert allowed or purpose
        for found in (
            [*by_actions(client, names, purpose)],
            [*by_resources(client, names, purpose)],
            [*by_subjects(client, names, purpose)],
            [*by_plans(client, entities, purpose)],
        ):
            assert sorted(found) == sorted(allowed)
        for cell in chance.sample(sorted(answers), EXPLAINED):
            single, told = client.check(*cell, purpose=purpose), client.explain(*cell, purpose=purpose)
            assert without_id(told.answer) == without_id(single) == without_id(answers[cell])


def without_id(answer: Answer) -> Answer:
    return msgspec.structs.replace(answer, decision_id="")
