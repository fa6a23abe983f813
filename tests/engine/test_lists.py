"""The lists say what Check says: complete, exact and in order, also while writes go on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.domain.decisions import Question, Reason
from authz.domain.entities import (
    Account,
    AccountStatus,
    Course,
    CourseState,
    Entity,
    Membership,
    Resource,
    Session,
    Share,
    ShareLevel,
    Visibility,
)
from authz.domain.ids import PLATFORM, ResourceRef, Scope, Subject, course_scope, session_scope
from authz.domain.instants import Instant
from authz.domain.lists import ListedResource, Position, ResourceQuery
from authz.engine import lists
from authz.engine.check import Checker
from authz.engine.lists import ListPage, ResourcePage, SubjectPage, types_to_list
from tests.client.random_campus import crowds
from tests.engine.campus import Campus
from tests.engine.test_isolation import (
    CHECKERS,
    GENEROUS,
    NOW,
    TYPES,
    campuses,
    own_policy,
    questions,
    subjects,
)
from tests.policies import POLICY, exacting_policy, policy_with
from tests.properties import examples
from tests.store.directory import user

EVERY_CHECKER = [*CHECKERS[::2], Checker(exacting_policy(), inline_types=frozenset(TYPES))]
CHECKER = Checker(POLICY)
STRUCTURAL = ("course", "session")
HERE, MONDAY = course_scope("algebra"), session_scope("monday")
MAYA = user("maya")


@st.composite
def asked_in(draw: st.DrawFn) -> tuple[list[Entity], Subject]:
    """A campus, with few resources in a scope or with many, and mostly somebody with a membership there."""
    entities = draw(campuses() | crowds)
    members = [each.subject for each in entities if isinstance(each, Membership)]
    is_suspended: bool = draw(st.booleans())
    if members and is_suspended:
        status, until = draw(st.sampled_from(AccountStatus)), draw(st.none() | st.integers(NOW, NOW + 5))
        entities.append(Account(draw(st.sampled_from(members)), status, until))
    some: st.SearchStrategy[Subject] = st.sampled_from(members) | subjects if members else subjects
    return entities, draw(some)


def resources(
    checker: Checker, campus: Campus, query: ResourceQuery, size: int = 1000, now: Instant = NOW
) -> list[ListedResource]:
    """The whole list, page by page."""
    found: list[ListedResource] = []
    position: Position | None = ()
    while position is not None:
        page = ResourcePage(checker, campus, now, query, size, position)
        items = [each for each in page if each is not None]
        assert len(items) <= size
        found += items
        position = page.position and msgspec.convert(page.position, Position)  # as a token carries it
    return found


def places(entities: list[Entity]) -> Iterator[tuple[ResourceRef, Scope]]:
    """Everything that a question may be about, with the scope that it is in."""
    for entity in {entity.key: entity for entity in entities}.values():
        if isinstance(entity, Resource):
            yield entity.key, entity.scope
        elif isinstance(entity, Course):
            yield ResourceRef("course", entity.id), course_scope(entity.id)
        elif isinstance(entity, Session):
            yield ResourceRef("session", entity.id), session_scope(entity.id)


def is_within(campus: Campus, scope: Scope, within: Scope | None) -> bool:
    context = campus.scope(scope)
    return within is None or (context is not None and within in context.scopes[1:])


@examples(150)
@given(st.data())
def test_list_resources_is_what_check_allows_once_each(data: st.DataObject) -> None:
    entities, subject = data.draw(asked_in())
    campus = Campus(entities)
    every = [*TYPES, *STRUCTURAL]
    within = data.draw(st.none() | st.sampled_from([scope for _, scope in places(entities)]))
    purpose = data.draw(st.sampled_from(["", "", "ai_response", "training"]))
    size = data.draw(st.integers(1, 4))
    for checker in EVERY_CHECKER:
        vocabulary = checker.policy.vocabulary
        for action in {a for name in every for a in vocabulary.types[name].actions} - {"create"}:
            types = tuple(name for name in every if action in vocabulary.types[name].actions)
            query = ResourceQuery(subject, action, (*types, types[0]), within, purpose)
            found = [each.ref for each in resources(checker, campus, query, size)]
            expected = {
                ref
                for ref, scope in places(entities)
                if ref.type in types
                and is_within(campus, scope, within)
                and checker.check(campus, Question(subject, action, ref, purpose=purpose), NOW).allowed
            }
            assert len(found) == len(set(found))
            assert set(found) == expected
            assert found == [each.ref for each in resources(checker, campus, query)]


@examples(100)
@given(st.data())
def test_a_page_holds_until_its_valid_until(data: st.DataObject) -> None:
    entities, subject = data.draw(asked_in())
    campus, asked = Campus(entities), data.draw(questions(entities))
    action = data.draw(st.sampled_from(["read", "update", "delete"]))
    query = ResourceQuery(subject, action, tuple(TYPES))
    for checker in EVERY_CHECKER:

        def pages(now: Instant, by: Checker = checker) -> list[ListPage[Any]]:
            return [
                ResourcePage(by, campus, now, query, 1000),
                SubjectPage(by, campus, now, asked, 1000),
            ]

        for number, page in enumerate(pages(NOW)):
            found = [*page]
            for later in range(NOW + 1, NOW + 12):
                if page.valid_until is not None and later >= page.valid_until:
                    break
                assert [*pages(later)[number]] == found


@examples(150)
@given(st.data())
def test_what_is_allowed_the_whole_time_is_on_exactly_one_page_while_writes_go_on(
    data: st.DataObject,
) -> None:
    """Each page is of another campus: the first one and changes. What all of them allow is listed once."""
    first, subject = data.draw(asked_in())
    states = [first]
    for _ in range(data.draw(st.integers(1, 3))):
        changed = data.draw(campuses())
        kept = [e for e in states[-1] if data.draw(st.booleans()) or isinstance(e, Course | Session)]
        # The scope of a resource and the course of a session never change.
        homes = {e.key for e in states[0] if isinstance(e, Resource | Session)}
        states.append([*kept, *(e for e in changed if e.key not in homes and not isinstance(e, Course))])
    action = data.draw(st.sampled_from(["read", "update", "delete"]))
    types = tuple(data.draw(st.sets(st.sampled_from([*TYPES, *STRUCTURAL]), min_size=1)))
    query, checker = ResourceQuery(subject, action, types), data.draw(st.sampled_from(EVERY_CHECKER))
    campuses_: list[tuple[Campus, set[ResourceRef]]] = []
    found: list[ResourceRef] = []
    position: Position | None = ()
    while position is not None:
        if len(campuses_) < len(states):
            campus = Campus(states[len(campuses_)], revision=len(campuses_) + 1)
            campuses_.append((campus, {each.ref for each in resources(checker, campus, query)}))
        campus, allowed = campuses_[-1]
        page = ResourcePage(checker, campus, NOW, query, 1, position)
        items = [each.ref for each in page if each is not None]
        assert set(items) <= allowed, "a page lists what its own revision denies"
        found += items
        position = page.position
    always = set.intersection(*(allowed for _, allowed in campuses_))
    registered = [set(dict(places(list(campus.entities)))) for campus, _ in campuses_]
    assert always <= set(found), "missed"
    there = set.intersection(*registered)
    assert all(found.count(ref) == 1 for ref in set(found) & there), "doubled"


def test_a_member_of_a_course_finds_what_is_in_its_sessions_too() -> None:
    campus = Campus(
        [
            Course(id="algebra", state=CourseState.ACTIVE),
            Session(id="monday", course_id="algebra", open_to_course=True),
            Session(id="alone"),
            Membership(subject=MAYA, scope=HERE, role="student"),
            Membership(subject=MAYA, scope=session_scope("alone"), role="guest"),
            Resource(type="message", id="m1", scope=MONDAY, visibility=Visibility.SESSION),
            Resource(type="message", id="m2", scope=HERE, visibility=Visibility.COURSE),
            Resource(type="message", id="m3", scope=session_scope("alone"), owner=MAYA),
            Resource(type="message", id="m4", scope=HERE),
        ]
    )
    found = resources(CHECKER, campus, ResourceQuery(MAYA, "read", ("message",)))
    assert [(e.ref.id, e.course_id, e.session_id) for e in found] == [
        ("m2", "algebra", None),
        ("m1", "algebra", "monday"),
        ("m3", None, "alone"),
    ]
    inside = resources(CHECKER, campus, ResourceQuery(MAYA, "read", ("message",), within=HERE))
    assert [e.ref.id for e in inside] == ["m2", "m1"]
    inside = resources(CHECKER, campus, ResourceQuery(MAYA, "read", ("message",), within=MONDAY))
    assert [e.ref.id for e in inside] == ["m1"]


def test_a_list_that_names_no_types_has_those_that_know_the_action() -> None:
    # Check refuses another type, even where a rule allows every action of every type.
    found = {action: types_to_list(GENEROUS.vocabulary, action, ()) for action in ("join", "ai_process")}
    assert found == {"join": ("session",), "ai_process": ("material", "message", "notebook", "session_note")}


def test_a_role_on_the_platform_finds_the_courses_that_it_opens_and_no_content() -> None:
    admin = Membership(subject=MAYA, scope=PLATFORM, role="platform_admin")
    campus = Campus([admin, *(Course(id=f"c{n}") for n in range(3))])
    found = resources(CHECKER, campus, ResourceQuery(MAYA, "archive", ("course",)), size=2)
    assert [e.ref.id for e in found] == ["c0", "c1", "c2"]
    everything = ResourceQuery(MAYA, "delete", ("course", "notebook", "message"))
    assert {e.ref.type for e in resources(CHECKER, campus, everything)} == {"course"}


def test_a_rule_of_one_course_opens_it_to_a_role_on_the_platform() -> None:
    entities: list[Entity] = [
        *(Course(id=name, state=CourseState.ACTIVE) for name in ("a", "b")),
        *(Session(id=f"in-{name}", course_id=name) for name in ("a", "b")),
        Membership(subject=MAYA, scope=PLATFORM, role="platform_admin"),
    ]
    query = ResourceQuery(MAYA, "read", ("session",))
    checker = Checker(policy_with("p, platform_admin, course:b, session, read, , allow"))
    assert [each.ref.id for each in resources(checker, Campus(entities), query)] == ["in-b"]
    own = Campus([*entities, *own_policy("b", "*, {}, session, read, , allow")])
    assert [each.ref.id for each in resources(CHECKER, own, query)] == ["in-b"]


def test_a_page_holds_until_the_first_time_that_may_change_what_is_on_it() -> None:
    ends = {"m0": NOW + 30, "m1": NOW + 20, "m2": NOW + 40}
    materials = [
        Resource(type="material", id=id_, scope=HERE, published=True, available_until=end)
        for id_, end in ends.items()
    ]
    student = Membership(subject=MAYA, scope=HERE, role="student")
    campus = Campus([Course(id="algebra", state=CourseState.ACTIVE), student, *materials])
    page = ResourcePage(CHECKER, campus, NOW, ResourceQuery(MAYA, "read", ("material",)), 1000)
    assert len([*filter(None, page)]) == 3
    assert page.valid_until == min(ends.values())


@pytest.mark.parametrize(
    ("query", "why"),
    [
        (ResourceQuery(MAYA, "read", ("course",), course_scope("algebr")), Reason.RESOURCE_UNKNOWN),
        (ResourceQuery(MAYA, "read", ("course",), session_scope("s")), Reason.RESOURCE_UNKNOWN),
        (ResourceQuery(MAYA, "read", ("course",), HERE, "training"), Reason.PURPOSE_NOT_PERMITTED),
        (ResourceQuery(MAYA, "read", ("notebook",), HERE), None),
    ],
)
def test_a_list_of_resources_says_why_nothing_can_be_listed(query: ResourceQuery, why: Reason | None) -> None:
    campus = Campus([Course(id="algebra"), Membership(subject=MAYA, scope=HERE, role="owner")])
    page = ResourcePage(CHECKER, campus, NOW, query, 10)
    assert ([each for each in page if each], page.unlisted, page.position) == ([], why, None)


def test_a_page_that_looks_at_much_and_finds_little_ends_and_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lists, "MAX_CANDIDATES", 7)
    drafts = [Resource(type="material", id=f"m{n:02}", scope=HERE) for n in range(40)]
    last = Resource(type="material", id="z", scope=HERE, published=True)
    member = Membership(subject=MAYA, scope=HERE, role="student")
    campus = Campus([Course(id="algebra", state=CourseState.ACTIVE), member, *drafts, last])
    query = ResourceQuery(MAYA, "read", ("material", "message"))
    first = ResourcePage(CHECKER, campus, NOW, query, 100)
    assert len([*first]) == 1 + 7  # the membership, and what it makes worth a look
    assert first.position is not None
    assert [each.ref.id for each in resources(CHECKER, campus, query)] == ["z"]


def test_only_the_own_and_the_shared_are_looked_at_where_nothing_else_can_be_allowed() -> None:
    others = [
        Resource(type="notebook", id=f"n{n:04}", scope=HERE, owner=user("nora"), visibility=Visibility.COURSE)
        for n in range(500)
    ]
    campus = Campus(
        [
            Course(id="algebra", state=CourseState.ACTIVE),
            Membership(subject=MAYA, scope=HERE, role="student"),
            *others,
            Resource(type="notebook", id="n0250x", scope=HERE, owner=MAYA),
            Share(resource=others[100].key, subject=MAYA, level=ShareLevel.EDITOR),
        ]
    )
    page = ResourcePage(CHECKER, campus, NOW, ResourceQuery(MAYA, "update", ("notebook",)), 100)
    looked_at = [*page]
    assert [each and each.ref.id for each in looked_at] == [None, "n0100", "n0250x"]  # the membership first
    members = [Membership(subject=user(f"u{n:04}"), scope=HERE, role="student") for n in range(500)]
    large = Campus([*campus.entities, *members])
    who = SubjectPage(CHECKER, large, NOW, Question(MAYA, "update", others[100].key), 100)
    assert [each and each.subject.id for each in who] == ["maya", None]  # nora is not a member
