"""Ctrl-C ends a command without a traceback, also while it starts, which takes a second or more; an import
then says what was imported."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence

import pytest
import typer

from authz.cli.interrupted_import import import_mutations
from authz.client import Client
from authz.client.imports import until
from authz.domain.entities import Course, CourseFilter, Membership
from authz.domain.ids import course_scope, parse_subject
from authz.domain.mutations import Mutation, Operation
from tests import waiting
from tests.forkserver import without_settings

INTERRUPTED = """
import sys

class Interrupt:
    def find_spec(self, name, *_):
        if name == {name!r}:
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
from authz.cli.__main__ import main
main()
"""


@pytest.mark.parametrize("name", ["typer", "authz.client", "authz.importers.resources"])
def test_an_interrupt_ends_a_command_with_its_exit_code_alone(name: str) -> None:
    command = ["import", "resources", "none.csv", "--database", "sqlite:///none.db"]
    ended = subprocess.run(
        [sys.executable, "-c", INTERRUPTED.format(name=name), *command],
        env=without_settings(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """As in a terminal, also where what runs the tests ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupting(mutations: Sequence[Mutation], number: signal.Signals, *, after: int) -> Iterator[Mutation]:
    """The mutations. Between two of them comes a signal, and the import has noticed it."""
    before = signal.getsignal(number)
    yield from mutations[:after]
    os.kill(os.getpid(), number)
    waiting.until(lambda: signal.getsignal(number) is not before, "the signal")
    yield from mutations[after:]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after", [0, 1, 2500])
def test_an_import_that_a_signal_ends_says_how_much_was_imported(
    address: str, number: signal.Signals, after: int, capsys: pytest.CaptureFixture[str]
) -> None:
    name = f"{number.name}-{after}"
    courses = [Mutation(Operation.TOUCH, Course(id=f"{name}-{n:04}")) for n in range(3000)]
    handler = signal.getsignal(number)
    with Client(address) as client:
        with pytest.raises(typer.Exit) as ended:
            import_mutations(
                client, interrupting(courses, number, after=after), total=len(courses), reason="a test"
            )
        assert ended.value.exit_code == 128 + number
        imported = [each.entity for each in client.read(CourseFilter()) if each.entity.id.startswith(name)]
        assert imported == [each.target for each in courses[:after]]
        told = capsys.readouterr()
        assert told.out == f"written {after}, unchanged 0, failed 0\n"
        assert f"error: interrupted after {after} of 3000 records" in told.err
        assert signal.getsignal(number) is handler
        again = import_mutations(client, courses, total=len(courses), reason="a test")
        assert (again.written, again.unchanged) == (3000 - after, after)


def test_a_second_signal_ends_an_import_at_once(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    ended = threading.Event()

    def endless() -> Iterator[Mutation]:
        yield from interrupting((), signal.SIGINT, after=0)
        os.kill(os.getpid(), signal.SIGINT)
        ended.wait(60)

    with Client(address) as client:
        with pytest.raises(KeyboardInterrupt):
            import_mutations(client, endless(), total=1, reason="a test")
        ended.set()
    assert "a part of the import may be written" in capsys.readouterr().err


def test_an_import_that_a_script_runs_in_the_background_leaves_interrupts_ignored(address: str) -> None:
    handlers = []

    def noting() -> Iterator[Mutation]:
        handlers.append(signal.getsignal(signal.SIGINT))
        yield Mutation(Operation.TOUCH, Course(id="background"))

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Client(address) as client:
        import_mutations(client, noting(), total=1, reason="a test")
    assert handlers == [signal.SIG_IGN]
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_a_stop_divides_no_change_of_role() -> None:
    def of(subject: str, *roles: str) -> list[Mutation]:
        who, where = parse_subject(subject), course_scope("algebra")
        return [Mutation(Operation.TOUCH, Membership(subject=who, scope=where, role=role)) for role in roles]

    course = Mutation(Operation.TOUCH, Course(id="algebra"))
    mutations = [course, *of("user:maya", "student", "auditor"), *of("user:omar", "student"), course, course]
    for asked, kept in ((1, 0), (2, 1), (3, 3), (4, 4), (5, 5)):
        answers = iter([False] * (asked - 1) + [True])
        assert len([*until(lambda: next(answers), mutations)]) == kept  # noqa: B023  consumed here
