"""Whose data is restricted has no access, whatever the records say; everybody else is answered as before."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from authz.domain.decisions import Question
from authz.domain.entities import (
    Account,
    AccountStatus,
    Course,
    CourseState,
    Entity,
    Membership,
    Resource,
    Restriction,
    Visibility,
)
from authz.domain.explanation import ChangeKind
from authz.domain.ids import ResourceRef, Subject, SubjectType, course_scope
from authz.domain.lists import ResourceQuery
from authz.engine.explain import explain
from tests.engine.campus import Campus
from tests.engine.test_isolation import IDS, NOW, TYPES, campuses, questions, subjects
from tests.engine.test_list_subjects import subjects_of
from tests.engine.test_lists import CHECKER, EVERY_CHECKER, resources
from tests.properties import examples
from tests.store.directory import user

HERE, MAYA, DIARY = course_scope("algebra"), user("maya"), ResourceRef("notebook", "diary")
RECORDS: list[Entity] = [
    Course("algebra", state=CourseState.ACTIVE),
    Membership(MAYA, HERE, "student"),
    Resource(DIARY.type, DIARY.id, scope=HERE, owner=MAYA, visibility=Visibility.PRIVATE),
]
EVERYBODY = [Subject(kind, id_) for kind in SubjectType for id_ in IDS]
RESTRICTION = Restriction(MAYA, 0)


@examples(150)
@given(st.data())
def test_exactly_the_restricted_subject_loses_all_access(data: st.DataObject) -> None:
    entities, restricted = data.draw(campuses()), data.draw(subjects)
    asked = [data.draw(questions(entities)) for _ in range(3)]
    for checker in EVERY_CHECKER:
        vocabulary = checker.policy.vocabulary
        every: list[Any] = [
            msgspec.structs.replace(question, subject=subject) for question in asked for subject in EVERYBODY
        ]
        # A campus replaces the one before.
        campus = Campus(entities)
        before = {each: checker.check(campus, each, NOW).allowed for each in every}
        holders = [subjects_of(checker, campus, each) for each in asked]
        campus = Campus([*entities, Restriction(restricted, 0)])
        for question, allowed in before.items():
            expected = allowed and question.subject != restricted
            assert checker.check(campus, question, NOW).allowed is expected
        for question, found in zip(asked, holders, strict=True):
            others = [each for each in found if each.subject != restricted]
            assert subjects_of(checker, campus, question) == others
        for action in {action for name in TYPES for action in vocabulary.types[name].actions} - {"create"}:
            types = tuple(name for name in TYPES if action in vocabulary.types[name].actions)
            assert resources(checker, campus, ResourceQuery(restricted, action, types)) == []


@examples(100)
@given(st.data())
def test_an_explanation_tells_a_restriction_from_a_suspended_account(data: st.DataObject) -> None:
    entities = data.draw(campuses())
    question = data.draw(questions(entities))
    until = data.draw(st.none() | st.integers(NOW - 2, NOW + 2))
    if data.draw(st.booleans()):
        entities.append(Account(question.subject, AccountStatus.SUSPENDED, until))
    campus = Campus(entities)
    own = campus.suspension(question.subject)
    is_suspended = own is not None and own.is_effective(NOW)
    was_allowed = CHECKER.check(campus, question, NOW).allowed
    found = explain(CHECKER, Campus([*entities, Restriction(question.subject, 0)]), question, NOW)
    assert not found.decision.allowed
    assert found.suspension is not None
    assert found.suspension.is_restriction
    assert found.suspension.is_of_account(NOW) is is_suspended
    assert found.allowed_from is None
    for changes in found.nearest_grants:
        kinds = [each.kind for each in changes]
        assert ChangeKind.RESTRICTION in kinds
        assert (ChangeKind.ACCOUNT in kinds) is is_suspended
    if was_allowed:
        (only,) = found.nearest_grants
        assert [each.kind for each in only] == [ChangeKind.RESTRICTION]


def test_who_is_restricted_and_suspended_needs_the_end_of_both() -> None:
    account = Account(MAYA, AccountStatus.SUSPENDED)
    question = Question(MAYA, "read", DIARY)
    found = explain(CHECKER, Campus([*RECORDS, account, RESTRICTION]), question, NOW)
    assert [[each.kind for each in some] for some in found.nearest_grants] == [
        [ChangeKind.ACCOUNT, ChangeKind.RESTRICTION]
    ]
    assert explain(CHECKER, Campus([*RECORDS, account]), question, NOW).decision.allowed is False
    assert explain(CHECKER, Campus(RECORDS), question, NOW).decision.allowed
    over = msgspec.structs.replace(account, suspended_until=NOW - 1)
    found = explain(CHECKER, Campus([*RECORDS, over, RESTRICTION]), question, NOW)
    assert [[each.kind for each in some] for some in found.nearest_grants] == [[ChangeKind.RESTRICTION]]
    later = msgspec.structs.replace(account, suspended_until=NOW + 1)
    found = explain(CHECKER, Campus([*RECORDS, later, RESTRICTION]), question, NOW)
    assert found.allowed_from is None
