"""A mistyped id of a person is told, as it is held, suspended, erased or asked about in place of another."""

from __future__ import annotations

import io

import pytest

from authz.client import Client
from authz.domain.entities import Account, Course, Entity, Resource
from authz.domain.ids import course_scope
from authz.domain.mutations import Mutation, Operation
from tests.cli.commands import run
from tests.serving import served
from tests.store.directory import student, user


@pytest.fixture
def consent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who answers yes."""
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))


@pytest.mark.parametrize(("who", "is_known"), [("user:ada", True), ("user:adda", False)])
@pytest.mark.parametrize(
    ("command", "note"),
    [
        ("privacy hold {} --reason case", "no record names {}"),
        ("account suspend {}", "no record names {}"),
        ("privacy export {}", "nothing is held about {}"),
        ("privacy erase {} --reason r --orphan-resources", "no record names {}"),
        ("privacy erase user:maya --reason r --resources-to {} --yes", "no record names {}"),
    ],
)
@pytest.mark.usefixtures("consent")
def test_a_command_about_a_person_says_if_no_record_names_the_id(
    sqlite_url: str, command: str, note: str, who: str, is_known: bool
) -> None:
    with served(sqlite_url) as address, Client(address) as client:
        known: list[Entity] = [Course("alg"), student("maya", "alg"), Account(user("ada"))]
        client.write([Mutation(Operation.CREATE, each) for each in known])
        done = run(*command.format(who).split(), "--address", address)
    assert done.returncode == 0, done.stderr
    assert (note.format(who) in done.stderr) is not is_known


def test_a_question_says_if_no_record_names_the_person_and_if_there_is_no_such_course_or_session(
    sqlite_url: str,
) -> None:
    notebook = Resource(type="notebook", id="n", scope=course_scope("alg"))
    known: list[Entity] = [Course("alg"), Course("bio"), notebook, student("maya", "alg")]
    with served(sqlite_url) as address:
        with Client(address) as client:
            client.write([Mutation(Operation.CREATE, each) for each in (*known, Account(user("ada")))])
        for question in (
            "check {} read notebook:n",
            "explain {} read notebook:n",
            "actions {} notebook:n",
            "list-resources {} read",
            "plan {} read notebook",
        ):
            for who, is_known in (("user:ada", True), ("user:adda", False)):
                done = run(*question.format(who).split(), "--address", address)
                assert ("note" in done.stderr) is not is_known, done.args
        for command in ("check user:maya read", "explain user:maya read", "actions user:maya"):
            for stated, unknown in (
                ("notebook:n --course course:alg", "course:course:alg"),
                ("notebook:n --session monday", "session:monday"),
                ("notebook:nosuch --course algebra", "course:algebra"),
                ("notebook:n --course bio", ""),
            ):
                done = run(*f"{command} {stated}".split(), "--address", address)
                assert done.stdout
                assert done.stderr == (f"note: there is no {unknown}; compare the id\n" if unknown else "")
