"""A leak is found by whichever call tells of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from authz.client import AccessibleResource, ActionAnswer, Client, PermittedSubject
from authz.domain.entities import Course, CourseState, Membership, Resource, Session
from authz.domain.ids import course_scope, parse_subject
from authz.domain.lists import PlanGroup
from authz.policy.invariants import INVARIANTS_FILE
from authz.policy.load import POLICY_FILE
from authz.testing.isolation import LeakSearch
from authz.testing.service import ServiceUnderTest, Template
from tests.policies import POLICY

OF_PAGE: dict[str, Any] = {"checked_at": "", "policy_version": "", "valid_until": None}
ALGEBRA, POETRY = course_scope("algebra"), course_scope("poetry")
CAMPUS = (
    Course(id="algebra", state=CourseState.ACTIVE),
    Course(id="poetry", state=CourseState.ACTIVE),
    Course(id="history", state=CourseState.ACTIVE),
    Course(id="logic", state=CourseState.ACTIVE),
    Membership(subject=parse_subject("user:maya"), scope=ALGEBRA, role="student"),
    Membership(subject=parse_subject("user:sami"), scope=ALGEBRA, role="student"),
    Membership(subject=parse_subject("user:sami"), scope=POETRY, role="student"),
    Membership(subject=parse_subject("user:sami"), scope=course_scope("history"), role="student"),
    Resource(type="material", id="verse", scope=POETRY, published=True),
    Resource(type="material", id="lent", scope=course_scope("logic"), owner=parse_subject("user:maya")),
    Session(id="monday", course_id="poetry"),
)
VOCABULARY = POLICY.vocabulary
QUIZ = """\
type, quiz, create|read
p, teacher, *, quiz, create, , allow
p, student, *, quiz, read, published, allow
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceUnderTest]:
    """A service with two courses, and somebody who is in both."""
    folder: Path = tmp_path_factory.mktemp("isolation")
    with Template(folder / "template").start(folder / "service") as started:
        started.write(*CAMPUS)
        yield started


class Leaky:
    """A client of a service with a fault: one of its calls lets maya into poetry."""

    def __init__(self, client: Client, call: str) -> None:
        self._client = client
        self._call = call

    def __getattr__(self, name: str) -> Any:
        return getattr(self, f"_leaky_{name}") if name == self._call else getattr(self._client, name)

    def _leaky_check(self, subject: Any, action: str, resource: Any, **values: Any) -> bool:
        return (str(subject), action, resource) == ("user:maya", "create", "message")

    def _leaky_batch_list_actions(self, subject: Any, resources: Any, **values: Any) -> Any:
        answers: Any = self._client.batch_list_actions(subject, resources, **values)
        return [
            msgspec.structs.replace(
                each,
                actions=each.actions | {"read": ActionAnswer(str(name) == "material:verse", "ROLE_GRANT")},
            )
            for name, each in zip(resources, answers, strict=True)
        ]

    def _leaky_list_resources(self, subject: Any, action: str, **values: Any) -> Any:
        if action == "read":
            yield AccessibleResource(resource="material:verse", course_id="poetry", session_id="", **OF_PAGE)

    def _leaky_plan_resources(self, subject: Any, action: str, type_name: str, **values: Any) -> Any:
        found = self._client.plan_resources(subject, action, type_name, **values)
        if (action, type_name) != ("read", "material"):
            return found
        return msgspec.structs.replace(found, groups=(*found.groups, PlanGroup(("poetry",), (), None)))

    def _leaky_authorize_session(self, subject: Any, session_id: str) -> bool:
        return (str(subject), session_id) == ("user:maya", "monday")

    def _leaky_authorize_sources(self, subject: Any, sources: Any) -> Any:
        for each in self._client.authorize_sources(subject, sources):
            yield SimpleNamespace(resource=each.resource) if str(subject) == "user:maya" else each

    def _leaky_list_subjects(self, action: str, resource: Any, *, purpose: str) -> Any:
        if (action, str(resource), purpose) == ("ai_process", "material:verse", "ai_response"):
            for subject in ("user:maya", "user:sami"):
                yield PermittedSubject(
                    subject=subject, role="", scope="", membership_role="", rule="", **OF_PAGE
                )


@pytest.mark.parametrize(
    ("call", "told_by", "what"),
    [
        ("check", "Check", "create message"),
        ("batch_list_actions", "ListActions", "read material:verse"),
        ("list_resources", "ListResources", "read material:verse"),
        ("plan_resources", "PlanResources", "read material"),
        ("list_subjects", "ListSubjects", "ai_process material:verse"),
        ("authorize_session", "AuthorizeSession", "join session:monday"),
        ("authorize_sources", "AuthorizeSources", "ai_process material:verse"),
    ],
)
def test_a_leak_is_found_by_the_call_that_tells_of_it(
    service: ServiceUnderTest, call: str, told_by: str, what: str
) -> None:
    leaky: Any = Leaky(service.client, call)
    found = [str(leak) for leak in LeakSearch(leaky, VOCABULARY, inside="algebra", outside="poetry").leaks()]
    assert found
    assert {line.split(" (told by ")[0].replace(" for ai_response", "") for line in found} == {
        f"user:maya, who is in algebra alone, may {what} of poetry"
    }
    assert all(f"(told by {told_by})" in line for line in found)


@pytest.mark.parametrize(
    ("courses", "why"),
    [
        (("algebra", "poetyr"), "there is no course `poetyr`; load it"),
        (("algebra", "algebra"), "nobody is in only one of"),
        (("poetry", "history"), "nobody is in only one of"),
    ],
)
def test_courses_are_not_isolated_where_nothing_could_be_tried(
    service: ServiceUnderTest, courses: tuple[str, str], why: str
) -> None:
    with pytest.raises(AssertionError, match=why):
        service.assert_isolated(*courses)


def test_who_owns_something_in_the_other_course_and_is_not_in_it_is_tried(service: ServiceUnderTest) -> None:
    search = LeakSearch(service.client, VOCABULARY, inside="algebra", outside="logic")
    assert parse_subject("user:maya") in search.strangers
    assert [*search.leaks()] == []


def test_courses_of_the_real_service_are_isolated(service: ServiceUnderTest) -> None:
    service.assert_isolated("algebra", "poetry")


def test_a_policy_that_a_test_publishes_is_the_one_that_counts(tmp_path: Path) -> None:
    with Template(tmp_path / "template").start(tmp_path / "service") as service:
        service.write(*CAMPUS)
        files = service.client.policies.files()
        files[POLICY_FILE] += QUIZ
        invariants = files[INVARIANTS_FILE]
        files[INVARIANTS_FILE] = invariants.replace("except_types = [", 'except_types = ["quiz", ')
        service.client.policies.apply(files, weaken_invariants=True)
        quiz = '{ type = "quiz", id = "q", scope = "course:poetry", published = true }'
        (tmp_path / "quiz.toml").write_text(f"[directory]\nresources = [{quiz}]\n")
        service.load(tmp_path / "quiz.toml")
        service.assert_allowed("user:sami", "read", "quiz:q")
        service.assert_isolated("algebra", "poetry")
