"""ListSubjects says who is allowed by Check, each by a membership and a rule that give it."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.domain.decisions import Question, Reason
from authz.domain.entities import (
    Course,
    CourseState,
    Membership,
    MembershipStatus,
    Resource,
    Share,
    ShareLevel,
    Visibility,
)
from authz.domain.errors import InvalidArgumentError
from authz.domain.ids import ResourceRef, Subject, SubjectType
from authz.domain.instants import Instant
from authz.domain.lists import ListedSubject, ResourceQuery
from authz.engine.check import Checker
from authz.engine.lists import SubjectPage
from tests.engine.campus import Campus
from tests.engine.test_isolation import CHECKERS, NOW, questions
from tests.engine.test_lists import CHECKER, EVERY_CHECKER, HERE, MAYA, asked_in, places, resources
from tests.policies import POLICY, policy_with
from tests.properties import examples
from tests.store.directory import user


def subjects_of(
    checker: Checker, campus: Campus, question: Question, size: int = 1000, now: Instant = NOW
) -> list[ListedSubject]:
    """The whole list, page by page."""
    found: list[ListedSubject] = []
    after: Subject | None = None
    while True:
        page = SubjectPage(checker, campus, now, question, size, after)
        items = [each for each in page if each is not None]
        assert len(items) <= size
        found += items
        if page.position is None:
            return found
        before, after = after, Subject(SubjectType(page.position[0]), page.position[1])
        assert before != after


@examples(150)
@given(st.data())
def test_list_subjects_is_who_check_allows_once_each_by_a_membership_that_they_hold(
    data: st.DataObject,
) -> None:
    entities, subject = data.draw(asked_in())
    campus = Campus(entities)
    everybody = {e.subject for e in entities if isinstance(e, Membership | Share)} | {subject, MAYA}
    everybody |= {e.owner for e in entities if isinstance(e, Resource) and e.owner}
    size, drawn = data.draw(st.integers(1, 2)), data.draw(questions(entities))
    refs = data.draw(st.lists(st.sampled_from([ref for ref, _ in places(entities)]), max_size=3))
    asked = [drawn] + [
        Question(campus.owner(ref) or subject, action, ref)
        for ref in refs
        for action in POLICY.vocabulary.types[ref.type].actions
        if action != "create"
    ]
    purposes = data.draw(st.permutations(["", "", "", "ai_response", "training"]))
    for number, about in enumerate(asked):
        purpose = "ai_response" if about.action == "ai_process" else purposes[number % len(purposes)]
        question = msgspec.structs.replace(about, purpose=purpose)
        by_each = {each: msgspec.structs.replace(question, subject=each) for each in everybody}
        for checker in (*CHECKERS, EVERY_CHECKER[-1]):
            decisions = {each: checker.check(campus, own, NOW) for each, own in by_each.items()}
            expected = sorted(str(each) for each, decision in decisions.items() if decision.allowed)
            found = subjects_of(checker, campus, question, size)
            assert sorted(str(each.subject) for each in found) == expected
            for each in found:
                assert each.rule == decisions[each.subject].rule
                held = campus.memberships_in(each.subject, [each.scope])
                assert each.grant_role in {m.role for m in held}
                assert each.rule.role in {"*", *checker.policy.inherited[each.role]}


def test_what_differs_in_its_share_or_its_owner_alone_is_not_listed_with_its_like() -> None:
    owned = [Resource(type="notebook", id=f"n{n}", scope=HERE, owner=user("nora")) for n in range(3)]
    campus = Campus(
        [
            Course(id="algebra", state=CourseState.ACTIVE),
            *(Membership(subject=user(name), scope=HERE, role="student") for name in ("ada", "maya", "nora")),
            *owned,
            Resource(type="notebook", id="n3", scope=HERE, owner=MAYA),
            Share(resource=owned[1].key, subject=MAYA, level=ShareLevel.VIEWER),
        ]
    )
    listed = resources(CHECKER, campus, ResourceQuery(MAYA, "read", ("notebook",)))
    assert [each.ref.id for each in listed] == ["n1", "n3"]
    who = [
        [
            each.subject.id
            for each in subjects_of(
                CHECKER, campus, Question(MAYA, "read", ResourceRef("notebook", id_)), size=1
            )
        ]
        for id_ in ("n0", "n1", "n3")
    ]
    assert who == [["nora"], ["maya", "nora"], ["maya"]]


def test_who_may_read_says_by_which_membership_and_rule() -> None:
    owner = Membership(subject=MAYA, scope=HERE, role="owner")
    alumna = Membership(subject=user("nora"), scope=HERE, role="student", status=MembershipStatus.COMPLETED)
    campus = Campus(
        [
            Course(id="algebra", state=CourseState.ACTIVE),
            owner,
            alumna,
            Membership(subject=user("omar"), scope=HERE, role="student", status=MembershipStatus.INVITED),
            Resource(type="material", id="m", scope=HERE, published=True),
        ]
    )
    found = subjects_of(CHECKER, campus, Question(MAYA, "read", ResourceRef("material", "m")))
    told = [(str(e.subject), e.role, str(e.scope), e.grant_role, e.rule.role) for e in found]
    assert told == [
        ("user:maya", "owner", "course:algebra", "owner", "teacher"),
        ("user:nora", "alumni", "course:algebra", "student", "alumni"),
    ]


def test_a_question_that_is_malformed_has_no_list_of_subjects() -> None:
    campus = Campus([Course(id="algebra"), Membership(subject=MAYA, scope=HERE, role="owner")])
    for question, words in (
        (Question(MAYA, "raed", ResourceRef("course", "algebra")), "did you mean `read`"),
        (Question(MAYA, "create", ResourceRef("notebook", "n"), "algebra"), "id"),
    ):
        with pytest.raises(InvalidArgumentError, match=words):
            SubjectPage(CHECKER, campus, NOW, question, 10)


def test_what_is_registered_decides_who_owns_it_and_not_its_description() -> None:
    nora = user("nora")
    registered = Resource(type="notebook", id="n", scope=HERE, owner=nora)
    campus = Campus(
        [
            Course(id="algebra", state=CourseState.ACTIVE),
            *(Membership(subject=each, scope=HERE, role="student") for each in (MAYA, nora)),
            registered,
        ]
    )
    for id_, owner in ("n", nora), ("new", MAYA):
        described = msgspec.structs.replace(registered, id=id_, owner=MAYA)
        question = Question(nora, "update", described.key, inline=described)
        assert [each.subject for each in subjects_of(EVERY_CHECKER[-1], campus, question)] == [owner]


def test_what_is_published_later_is_not_yet_denied_for_being_published() -> None:
    material = Resource(type="material", id="m", scope=HERE, published=True, available_from=NOW + 5)
    teacher = Membership(subject=MAYA, scope=HERE, role="teacher")
    campus = Campus([Course(id="algebra", state=CourseState.ACTIVE), teacher, material])
    checker = Checker(policy_with("p, *, *, material, update, published, deny"))
    question = Question(MAYA, "update", material.key)
    listed = [len(subjects_of(checker, campus, question, now=now)) for now in (NOW, NOW + 4, NOW + 5)]
    assert listed == [1, 1, 0]


def test_who_has_a_share_is_not_taken_for_the_other_members() -> None:
    notebook = Resource(type="notebook", id="n", scope=HERE, visibility=Visibility.COURSE)
    campus = Campus(
        [
            Course(id="algebra", state=CourseState.ACTIVE),
            *(Membership(subject=user(name), scope=HERE, role="student") for name in ("ada", "maya", "nora")),
            notebook,
            Share(resource=notebook.key, subject=user("ada"), level=ShareLevel.VIEWER),
        ]
    )
    checker = Checker(policy_with("p, student, *, notebook, read, !own & !shared_view, deny"))
    found = subjects_of(checker, campus, Question(MAYA, "read", notebook.key))
    assert [each.subject.id for each in found] == ["ada"]


@pytest.mark.parametrize(
    ("question", "why"),
    [
        (Question(MAYA, "read", ResourceRef("material", "nowhere")), Reason.RESOURCE_UNKNOWN),
        (Question(MAYA, "read", ResourceRef("course", "algebra"), "b"), Reason.SCOPE_MISMATCH),
        (
            Question(MAYA, "read", ResourceRef("course", "algebra"), purpose="training"),
            Reason.PURPOSE_NOT_PERMITTED,
        ),
    ],
)
def test_who_may_says_why_nobody_is_listed(question: Question, why: Reason) -> None:
    campus = Campus([Course(id="algebra"), Membership(subject=MAYA, scope=HERE, role="owner")])
    page = SubjectPage(CHECKER, campus, NOW, question, 10)
    assert ([*page], page.unlisted, page.position) == ([], why, None)
