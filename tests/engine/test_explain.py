"""An explanation says what was decided and why; its nearest grants allow, and less does not."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, product
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from authz.domain.decisions import CREATE_ACTION, STRUCTURAL_TYPES, Question, Reason
from authz.domain.entities import (
    Account,
    AccountStatus,
    Course,
    CourseKey,
    CourseState,
    Entity,
    Key,
    Membership,
    MembershipKey,
    MembershipStatus,
    Resource,
    Session,
    SessionKey,
    SessionState,
    Share,
    ShareLevel,
    Visibility,
)
from authz.domain.explanation import Change, ChangeKind
from authz.domain.facts import FACTS, FACTS_BY_NAME
from authz.domain.ids import PLATFORM, ResourceRef, ScopeKind, course_scope, session_scope
from authz.engine.check import Checker
from authz.engine.explain import explain
from tests.engine.campus import Campus
from tests.engine.test_isolation import CHECKERS, NOW, campuses, questions, subjects
from tests.engine.test_lists import EVERY_CHECKER
from tests.policies import POLICY
from tests.properties import examples
from tests.store.directory import user

CHECKER = Checker(POLICY)
MAYA = user("maya")
HERE, MONDAY = course_scope("algebra"), session_scope("monday")
EVERY = [*CHECKERS, EVERY_CHECKER[-1]]
DAY = 86_400_000_000
WIDE = 100
"""An edit window, in microseconds, that now is inside of."""


class Applied:
    """The records and the question after some changes, made as their owner would make them."""

    def __init__(self, entities: list[Entity], question: Question) -> None:
        self.entities: dict[Key, Entity] = {entity.key: entity for entity in entities}
        self.question = question
        self._campus = Campus(entities)

    def allows(self, checker: Checker, *changes: Change) -> bool:
        for change in changes:
            self._apply(change)
        return checker.check(Campus(self.entities.values()), self.question, NOW).allowed

    def _apply(self, change: Change) -> None:
        subject, scope = self.question.subject, change.scope
        match change.kind:
            case ChangeKind.ROLE:
                assert scope is not None
                self._put(Membership(subject=subject, scope=scope, role=change.roles[0]))
            case ChangeKind.MEMBERSHIP:
                assert scope is not None
                self._set(
                    MembershipKey(subject, scope, change.roles[0]),
                    status=MembershipStatus.ACTIVE,
                    starts_at=None,
                    ends_at=None,
                    suspended_until=None,
                )
            case ChangeKind.ACCOUNT:
                self._put(Account(subject=subject, status=AccountStatus.ACTIVE))
            case ChangeKind.COURSE_STATE:
                assert scope is not None
                self._set(CourseKey(scope.id), state=CourseState.ACTIVE)
            case ChangeKind.PURPOSE:
                self.question = msgspec.structs.replace(self.question, purpose=change.purpose)
            case ChangeKind.STATED_SCOPE:
                assert scope is not None
                course, session = scope.kind is ScopeKind.COURSE, scope.kind is ScopeKind.SESSION
                self.question = msgspec.structs.replace(
                    self.question,
                    stated_course_id=scope.id if course else None,
                    stated_session_id=scope.id if session else None,
                )
            case ChangeKind.FACT:
                self._apply_fact(change.fact, holds=change.holds)

    def _apply_fact(self, fact: str, *, holds: bool) -> None:  # noqa: PLR0912  a case for each fact
        subject, ref = self.question.subject, self.question.resource
        match fact:
            case "own":
                self._resource(owner=subject if holds else None)
            case "shared_view" | "shared_edit":
                edit = fact == "shared_edit"
                if holds or edit:
                    level = ShareLevel.EDITOR if edit and holds else ShareLevel.VIEWER
                    self._put(Share(resource=ref, subject=subject, level=level))
                else:
                    self.entities.pop(Share(resource=ref, subject=subject, level=ShareLevel.VIEWER).key, None)
            case "published":
                self._resource(published=holds, available_from=None, available_until=None)
            case "course_visible":
                self._resource(visibility=Visibility.COURSE if holds else Visibility.PRIVATE)
            case "session_visible":
                self._resource(visibility=Visibility.SESSION if holds else Visibility.PRIVATE)
            case "attending":
                self._session(open_to_course=holds)
            case "within_edit_window":
                self._resource(created_at=NOW if holds else None)
                self._course(edit_window_us=WIDE)
            case "ai_enabled":
                self._resource(ai_allowed=holds)
                self._course(ai_enabled=True)
            case "for_ai_response":
                purpose = "ai_response" if holds else ""
                self.question = msgspec.structs.replace(self.question, purpose=purpose)
            case "course_archived":
                self._course(state=CourseState.ARCHIVED if holds else CourseState.ACTIVE)
            case "session_live":
                self._session(state=SessionState.LIVE if holds else SessionState.SCHEDULED)
            case "session_ended":
                self._session(state=SessionState.ENDED if holds else SessionState.SCHEDULED)
            case _:
                flag = FACTS_BY_NAME[fact].of_resource
                assert flag is not None and flag[1] is True, f"add a case that makes `{fact}` hold"
                self._resource(**{flag[0].value: holds})

    def _resource(self, **values: Any) -> None:
        ref, inline = self.question.resource, self.question.inline
        if ref in self.entities:
            self._set(ref, **values)
        elif inline is not None:
            described = msgspec.structs.replace(inline, **values)
            self.question = msgspec.structs.replace(self.question, inline=described)

    def _course(self, **values: Any) -> None:
        self._home(ScopeKind.COURSE, **values)

    def _session(self, **values: Any) -> None:
        self._home(ScopeKind.SESSION, **values)

    def _home(self, kind: ScopeKind, **values: Any) -> None:
        """Change the course or the session that the question is about, if there is one."""
        plain = msgspec.structs.replace(self.question, purpose="")
        trace = explain(CHECKERS[1], self._campus, plain, NOW).trace
        for scope in trace.scopes:
            if scope.kind is kind:
                self._set(CourseKey(scope.id) if kind is ScopeKind.COURSE else SessionKey(scope.id), **values)

    def _put(self, entity: Entity) -> None:
        self.entities[entity.key] = entity

    def _set(self, key: Key, **values: Any) -> None:
        self._put(msgspec.structs.replace(self.entities[key], **values))


def single_changes(campus: Campus, question: Question, checker: Checker) -> list[Change]:
    """Every change of one thing that might allow."""
    trace = explain(checker, campus, question, NOW).trace
    there = {None, *(scope.kind for scope in trace.scopes)}
    found = [
        Change(kind=ChangeKind.FACT, fact=fact.name, holds=holds)
        for fact in FACTS
        for holds in (True, False)
        if fact.name != "course_archived" and not (fact.is_of_resource and _is_about_no_content(question))
        if fact.needs in there  # nobody can describe a resource as visible in a session that it is not in
    ]
    for scope in trace.scopes:
        found += [
            Change(kind=ChangeKind.ROLE, scope=scope, roles=(role.name,))
            for role in checker.policy.vocabulary.roles.values()
            if role.scope_kind is scope.kind
        ]
        if scope.kind is ScopeKind.COURSE:
            found.append(Change(kind=ChangeKind.COURSE_STATE, scope=scope))
    for held in campus.memberships_in(question.subject, trace.scopes):
        found.append(Change(kind=ChangeKind.MEMBERSHIP, scope=held.scope, roles=(held.role,)))
    return [*found, Change(kind=ChangeKind.ACCOUNT)]


def _is_about_no_content(question: Question) -> bool:
    return question.action == CREATE_ACTION or question.resource.type in STRUCTURAL_TYPES


DESCRIBED = Question(
    MAYA,
    "read",
    ResourceRef("notebook", "n"),
    inline=Resource(type="notebook", id="n", scope=course_scope("a")),
)


@st.composite
def asked(draw: st.DrawFn) -> tuple[list[Entity], Question]:
    entities = draw(campuses())
    suspended = draw(st.lists(subjects, max_size=2))
    entities += [Account(subject=each, status=AccountStatus.SUSPENDED) for each in suspended]
    question = draw(questions(entities))
    if draw(st.booleans()):
        courses = [e.id for e in entities if isinstance(e, Course)]
        sessions = [e.id for e in entities if isinstance(e, Session)]
        kind, ids = draw(st.sampled_from([("course", courses), ("session", sessions or courses)]))
        actions = [a for a in CHECKER.policy.vocabulary.types[kind].actions if a != CREATE_ACTION]
        ref = ResourceRef(kind, draw(st.sampled_from(ids)))
        question = Question(question.subject, draw(st.sampled_from(actions)), ref, purpose=question.purpose)
    return entities, question


@examples(300)
@given(asked(), st.sampled_from(range(len(EVERY))))
def test_the_nearest_grants_of_a_denial_allow_and_less_does_not(
    given_: tuple[list[Entity], Question], number: int
) -> None:
    entities, question = given_
    checker, campus = EVERY[number], Campus(entities)
    told = explain(checker, campus, question, NOW)
    assert told.decision == checker.check(campus, question, NOW)
    if told.decision.allowed:
        assert not told.nearest_grants
        return
    for changes in told.nearest_grants:
        for role in next((c.roles for c in changes if c.kind is ChangeKind.ROLE), ("",)):
            one = [
                msgspec.structs.replace(c, roles=(role,)) if c.kind is ChangeKind.ROLE else c for c in changes
            ]
            assert Applied(entities, question).allows(checker, *one), one
            for size in range(len(one)):
                for less in combinations(one, size):
                    assert not Applied(entities, question).allows(checker, *less), (less, one)


@examples(100)
@given(asked(), st.sampled_from(range(len(EVERY))))
@example(([Course(id="a")], DESCRIBED), 1)
def test_no_smaller_grant_is_missed(given_: tuple[list[Entity], Question], number: int) -> None:
    entities, question = given_
    checker, campus = EVERY[number], Campus(entities)
    told = explain(checker, campus, question, NOW)
    if told.decision.allowed or told.decision.reason in (
        Reason.RESOURCE_UNKNOWN,
        Reason.SCOPE_MISMATCH,
        Reason.PURPOSE_NOT_PERMITTED,
    ):
        return
    if {len(changes) for changes in told.nearest_grants} == {1}:
        return
    for change in single_changes(campus, question, checker):
        assert not Applied(entities, question).allows(checker, change), change


@examples(100)
@given(asked())
def test_time_alone_allows_from_when_it_is_said_and_not_before(
    given_: tuple[list[Entity], Question],
) -> None:
    entities, question = given_
    campus = Campus(entities)
    for checker in CHECKERS:
        told = explain(checker, campus, question, NOW)
        later = [at for at in range(NOW, NOW + 15) if checker.check(campus, question, at).allowed]
        if not told.decision.allowed:
            assert told.allowed_from == next(iter(later), None)


CAMPUS: list[Entity] = [
    Course(id="algebra", state=CourseState.ACTIVE),
    Session(id="monday", course_id="algebra"),
    Membership(subject=MAYA, scope=HERE, role="student"),
    Resource(
        type="material",
        id="exam",
        scope=HERE,
        owner=user("nadia"),
        published=True,
        available_from=NOW + 3 * DAY,
    ),
    Resource(type="notebook", id="nb", scope=HERE, owner=MAYA, locked=True),
]


def texts(action: str, ref: ResourceRef, entities: Sequence[Entity] = CAMPUS) -> list[list[str]]:
    told = explain(CHECKER, Campus(entities), Question(MAYA, action, ref), NOW)
    return [[change.text(NOW) for change in changes] for changes in told.nearest_grants]


def test_a_material_that_is_not_available_yet_is_so_in_three_days_or_for_the_staff() -> None:
    exam = ResourceRef("material", "exam")
    assert texts("read", exam) == [
        [
            "if `published` held (the resource is published, and now is inside its window of availability),"
            " which time alone brings about at 1970-01-04T00:00:01Z (in 3 days)"
        ],
        ["with role `teaching_assistant`, `teacher` or `owner` in `course:algebra`"],
    ]
    told = explain(CHECKER, Campus(CAMPUS), Question(MAYA, "read", exam), NOW)
    assert told.allowed_from == NOW + 3 * DAY
    assert told.inputs["resource.available_from"] == NOW + 3 * DAY
    assert told.message == "This is not open to you."


def test_a_gate_is_told_as_one() -> None:
    locked = [["if the gate `locked` did not hold (the resource is locked)"]]
    assert texts("update", ResourceRef("notebook", "nb")) == locked
    told = explain(CHECKER, Campus(CAMPUS), Question(MAYA, "update", ResourceRef("notebook", "nb")), NOW)
    assert told.message == "This is locked."


BY_TIME = ", which time alone brings about at"


@pytest.mark.parametrize(
    ("dates", "why"),
    [
        ({"suspended_until": 1}, f"it is suspended){BY_TIME} 1970-01-02T00:00:01Z (in 1 day)"),
        ({"starts_at": 2}, f"it has not started){BY_TIME} 1970-01-03T00:00:01Z (in 2 days)"),
        (
            {"suspended_until": 1, "starts_at": 2},
            f"it is suspended){BY_TIME} 1970-01-03T00:00:01Z (in 2 days)",
        ),
        ({"suspended_until": 1, "ends_at": 1}, "it is suspended)"),
        ({"ends_at": 0}, "it has ended)"),
    ],
)
def test_a_membership_is_told_with_the_time_from_which_it_is_in_effect(
    dates: dict[str, int], why: str
) -> None:
    times = {name: NOW + days * DAY for name, days in dates.items()}
    member = msgspec.structs.replace(Membership(subject=MAYA, scope=HERE, role="student"), **times)
    campus = [member, *(e for e in CAMPUS if not isinstance(e, Membership))]
    course = ResourceRef("course", "algebra")
    (told, *_) = texts("read", course, campus)
    assert told == [f"if the membership as `student` in `course:algebra` were in effect ({why}"]
    allowed_from = explain(CHECKER, Campus(campus), Question(MAYA, "read", course), NOW).allowed_from
    assert (allowed_from is not None) is (BY_TIME in why)


def test_who_is_not_a_member_is_told_which_roles_would_do() -> None:
    strangers = [e for e in CAMPUS if not isinstance(e, Membership)]
    (found,) = texts("read", ResourceRef("course", "algebra"), strangers)
    assert found == [
        "with role `alumni`, `auditor`, `student`, `teaching_assistant`, `teacher` or `owner`"
        " in `course:algebra`"
    ]


def test_every_fact_can_be_told_by_what_it_was_computed_from() -> None:
    monday = Resource(type="message", id="m", scope=MONDAY, owner=MAYA, created_at=NOW)
    entities = [*CAMPUS, monday, Share(resource=monday.key, subject=MAYA, level=ShareLevel.VIEWER)]
    told = explain(CHECKER, Campus(entities), Question(MAYA, "update", monday.key), NOW)
    named = {name for fact in FACTS for name in fact.computed_from}
    absent = {"resource.available_from", "resource.available_until"}
    assert set(told.inputs) == named - absent
    assert told.inputs["course.edit_window"] == 900_000_000
    assert told.inputs["share"] == "VIEWER"
    assert told.inputs["memberships"] == "student in course:algebra"
    assert told.inputs["session.state"] == "SCHEDULED"


def test_the_message_for_the_person_names_no_rule_no_role_and_nobody() -> None:
    facts = {name for name in FACTS_BY_NAME if "_" in name}
    secret = facts | set(CHECKER.policy.vocabulary.roles) | {"nadia", "nora", "maya"}
    nora = Membership(subject=user("nora"), scope=PLATFORM, role="support_agent")
    content = [e.key for e in CAMPUS if isinstance(e, Resource)]
    for entities, ref in product(([*CAMPUS, nora], [*CAMPUS[:2], *CAMPUS[3:]]), content):
        for action in set(CHECKER.policy.vocabulary.types[ref.type].actions) - {CREATE_ACTION}:
            message = explain(CHECKER, Campus(entities), Question(MAYA, action, ref), NOW).message
            assert not {word.strip(".,").lower() for word in message.split()} & secret
