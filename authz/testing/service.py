"""The real service for one test, with a directory of its own, and assertions about what it answers."""

from __future__ import annotations

import datetime as dt
import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from authz.client import Answer, BareTouchWarning, Client
from authz.client.arguments import as_instant
from authz.domain.decision_log import DecisionEntry
from authz.domain.decisions import Reason
from authz.domain.entities import Entity
from authz.domain.errors import AuthzError, malformed
from authz.domain.ids import ResourceRef, Subject
from authz.domain.instants import Instant
from authz.domain.mutations import MAX_MUTATIONS_PER_WRITE, Mutation, Operation
from authz.domain.toml import parse_toml
from authz.domain.vocabulary import Vocabulary, suggest
from authz.policy.directory_tables import read_directory
from authz.policy.load import compile_files, read_folder
from authz.runtime.compose import system_clock
from authz.runtime.embedded import embedded
from authz.runtime.settings import load_settings
from authz.testing.isolation import LeakSearch
from authz.testing.recording import Recording

_DATABASE = "authz.db"
_TIMEOUT_S = 30.0
"""Machines that run tests may be slow, and no user waits."""


class ServiceUnderTest:
    """A running service, alone with one test.

    `address` is where the application under test finds it, and `client` is a client of it. Times are those
    of the machine until `set_time`.
    """

    def __init__(self) -> None:
        self._time: int | None = None
        self._earliest = system_clock()
        self._recordings: list[Recording] = []
        self.address = ""
        self.client: Client

    def set_time(self, time: dt.datetime | Instant) -> None:
        """Let the service take this for the present, from now on. Time for decisions never runs backward, so
        `ValueError` refuses a time before the start of the service, or before the one that was set."""
        instant = as_instant(time, field="time")
        if instant < self._earliest:
            raise ValueError(f"{time} is in the past of the service; time runs forward only")
        self._time = self._earliest = instant

    def load(self, file: str | Path) -> None:
        """Write the records of a TOML file: its table `directory`, in the form of the tests of a policy.

        Raises `InvalidArgumentError` that names the record or the table at fault, `CallError` for one that
        the service refuses, and `ValueError` for a file that is no TOML.
        """
        try:
            self.write(*read_directory(_records_in(file), self._vocabulary()))
        except (AuthzError, ValueError) as error:
            error.add_note(f"in {file}")
            raise

    def write(self, *entities: Entity) -> None:
        """Write records, containers first. One that exists is replaced."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", BareTouchWarning)
            for start in range(0, len(entities), MAX_MUTATIONS_PER_WRITE):
                part = entities[start : start + MAX_MUTATIONS_PER_WRITE]
                self.client.write([Mutation(Operation.TOUCH, entity) for entity in part])

    def assert_allowed(
        self,
        subject: str | Subject,
        action: str,
        resource: str | ResourceRef,
        *,
        course_id: str | None = None,
        session_id: str | None = None,
        purpose: str = "",
    ) -> Answer:
        """Fail, with why and what would allow it, unless the check is allowed."""
        __tracebackhide__ = True
        told = self.client.explain(
            subject, action, resource, course_id=course_id, session_id=session_id, purpose=purpose
        )
        if not told:
            grants = [" and ".join(change.text for change in changes) for changes in told.nearest_grants]
            remedy = f"; it would be allowed {', or '.join(grants)}" if grants else ""
            raise AssertionError(f"{subject} may not {action} {resource}: {_reason(told.answer)}{remedy}")
        return told.answer

    def assert_denied(
        self,
        subject: str | Subject,
        action: str,
        resource: str | ResourceRef,
        *,
        reason: str = "",
        course_id: str | None = None,
        session_id: str | None = None,
        purpose: str = "",
    ) -> Answer:
        """Fail, with the rule that allows it, unless the check is denied; for this `reason`, if given.

        Without `reason`, a resource that is not registered fails, too: a name with a typing mistake would be
        denied to everybody.
        """
        __tracebackhide__ = True
        if reason and reason not in Reason.__members__:
            raise malformed("reason", f"is `{reason}`; {suggest(reason, Reason.__members__)}")
        answer = self.client.check(
            subject, action, resource, course_id=course_id, session_id=session_id, purpose=purpose
        )
        if answer:
            raise AssertionError(f"{subject} may {action} {resource}: {answer.rule}")
        if not reason and answer.reason == Reason.RESOURCE_UNKNOWN:
            raise AssertionError(
                f"{resource}, or the course or session that it is in, is not registered;"
                f' if that is what you test, give reason="{answer.reason}"'
            )
        if reason and answer.reason != reason:
            raise AssertionError(
                f"{subject} may not {action} {resource}: the reason is {_reason(answer)}, not {reason}"
            )
        return answer

    def assert_isolated(self, course_a: str, course_b: str) -> None:
        """Fail, with every leak, if somebody of one course may do anything in the other.

        Tries every subject of one course that is not also in the other, or on the platform, with every
        action on every resource of the other, by each of the calls that tell of access. Fails also if there
        is no such course, or nobody to try.
        """
        __tracebackhide__ = True
        names, vocabulary = (course_a, course_b), self._vocabulary()
        known = {course.entity.id for course in self.client.read_courses(ids=names)}
        for name in names:
            if name not in known:
                raise AssertionError(f"there is no course `{name}`; load it or write it first")
        searches = [
            LeakSearch(self.client, vocabulary, inside=inside, outside=outside)
            for inside, outside in (names, names[::-1])
        ]
        if not any(search.strangers for search in searches):
            raise AssertionError(
                f"nobody is in only one of {course_a} and {course_b}: there is nobody to try"
            )
        leaks = [leak for search in searches for leak in search.leaks()]
        if leaks:
            lines = "\n".join(dict.fromkeys(f"  {leak}" for leak in leaks))
            raise AssertionError(f"{course_a} and {course_b} are not isolated:\n{lines}")

    @contextmanager
    def recording(self) -> Iterator[Recording]:
        """Record the questions of all clients of this service within the block."""
        recording = Recording()
        self._recordings.append(recording)
        try:
            yield recording
        finally:
            self._recordings.remove(recording)

    def _vocabulary(self) -> Vocabulary:
        """The types and actions of the active policy, which a test may have replaced."""
        return compile_files(self.client.policies.files(), is_published=True).vocabulary

    def _note(self, entry: DecisionEntry) -> None:
        for recording in tuple(self._recordings):
            recording.note(entry)

    def _now(self) -> int:
        return system_clock() if self._time is None else self._time


class Template:
    """A database with a policy and a directory, made once; each service begins with a copy of it."""

    def __init__(self, folder: Path, *, policy: Path | None = None, directories: Sequence[Path] = ()) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        with _running(folder) as service:
            if policy is not None:
                # The shipped policy, which it replaces, promises nothing about another application.
                service.client.policies.apply(read_folder(policy), reason="tests", weaken_invariants=True)
            for each in directories:
                service.load(each)

    @contextmanager
    def start(self, folder: Path) -> Iterator[ServiceUnderTest]:
        """A service over a copy, which is made in `folder`, until the block ends."""
        shutil.copytree(self._folder, folder, dirs_exist_ok=True)
        with _running(folder) as service:
            yield service


def _records_in(file: str | Path) -> dict[str, Any]:
    data = parse_toml(Path(file).read_text(encoding="utf-8"))
    if "directory" not in data:
        raise malformed("directory", "is missing; the records are in a table of this name")
    return data["directory"]  # type: ignore[no-any-return]  # read_directory validates it


@contextmanager
def _running(folder: Path) -> Iterator[ServiceUnderTest]:
    # Not from the environment: what a machine sets for its server is not for tests.
    given: dict[str, Any] = {
        "address": "127.0.0.1:0",
        "database_url": f"sqlite:///{folder / _DATABASE}",
        "log_level": "error",
    }
    service = ServiceUnderTest()
    with ExitStack() as stack:
        settings = load_settings(given, environ={})
        service.address = stack.enter_context(
            embedded(settings, clock=service._now, on_question=service._note)
        )
        service.client = stack.enter_context(Client(service.address, timeout_s=_TIMEOUT_S))
        yield service


def _reason(answer: Answer) -> str:
    return f"{answer.reason} ({answer.detail})" if answer.detail else answer.reason
