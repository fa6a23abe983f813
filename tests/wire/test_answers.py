"""Answers that the server and the client both convert: the client reads what the server sent."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from enum import StrEnum
from typing import Any, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.domain.decision_log import StoredDecision
from authz.domain.decisions import Verdict
from authz.domain.entities import KINDS, Entity, Erasure, Restriction, RetentionRule, Versioned
from authz.domain.erasures import ErasureCertificate, RestrictedSubject
from authz.domain.exports import ExportItem
from authz.domain.facts import FACTS
from authz.domain.ids import PLATFORM, ResourceRef, Scope, Subject, SubjectType, course_scope, session_scope
from authz.domain.impact import Impact, PreviewProgress, PreviewTotals
from authz.domain.lists import PlanGroup
from authz.domain.mutations import Mutation, Operation
from authz.domain.policy_changes import CellChange, PolicyDiff
from authz.domain.predicates import Comparison, Operator
from authz.domain.shadow import PolicyShadow, ShadowCount, ShadowReport, ShadowTally
from authz.wire.audit import decision_message, parse_decision
from authz.wire.exports import export_messages, parse_export_item
from authz.wire.lists import group_message, parse_group
from authz.wire.policies import diff_message, parse_diff
from authz.wire.previews import parse_preview, preview_message
from authz.wire.privacy import (
    certificate_message,
    parse_certificate,
    parse_period,
    period_message,
    restricted_message,
    restricted_of,
)
from authz.wire.shadows import parse_shadow, shadow_message
from tests.properties import examples
from tests.records import IDS, TEXTS, TYPES, entities

COURSES = st.builds(course_scope, IDS)
SUBJECTS = st.builds(Subject, st.sampled_from(SubjectType), IDS)
SUBJECT_TEXTS = st.just("") | SUBJECTS.map(str)
NUMBERS = st.integers(0, 2**31 - 1)
"""Counts and, in microseconds, times."""
ANY_ENTITY = st.sampled_from([*KINDS.values()]).flatmap(entities)
VALUES: dict[Any, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    int: NUMBERS,
    float: st.floats(0, 1),
    str: TEXTS,
    Subject: SUBJECTS,
    Scope: st.just(PLATFORM) | COURSES | st.builds(session_scope, IDS),
    ResourceRef: st.builds(ResourceRef, TYPES, IDS),
    Entity: ANY_ENTITY,
    Mutation: st.builds(Mutation, st.sampled_from([Operation.TOUCH, Operation.DELETE]), ANY_ENTITY),
    **{each: entities(KINDS[each.__name__.lower()]) for each in (Erasure, Restriction)},
    RetentionRule: entities(KINDS["retention_rule"]),
}


def any_of(type_: Any, **fixed: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Values of a type, made from the types of its fields, except of those that are fixed."""
    if type_ in VALUES:
        return VALUES[type_]
    origin, args = typing.get_origin(type_), typing.get_args(type_)
    if origin in (typing.Union, types.UnionType):
        return st.one_of(*map(any_of, args))
    if origin is tuple:
        return st.lists(any_of(args[0]), max_size=2).map(tuple)
    if origin is dict:
        return st.dictionaries(any_of(args[0]), any_of(args[1]), max_size=2)
    if origin is Versioned:
        return st.builds(Versioned, any_of(args[0]), NUMBERS)
    if type_ is types.NoneType:
        return st.none()
    if issubclass(type_, StrEnum):
        return st.sampled_from(type_)
    hints = typing.get_type_hints(type_)
    return st.builds(
        type_, **{name: fixed[name] if name in fixed else any_of(of) for name, of in hints.items()}
    )


VALUES[Verdict] = any_of(Verdict, unmet=st.integers(0, sum(fact.bit for fact in FACTS)))


def by_checks(cells: list[ShadowCount]) -> tuple[ShadowCount, ...]:
    return tuple(sorted(cells, key=lambda each: (-each.checks, each.cell)))


SHADOWED: dict[str, st.SearchStrategy[Any]] = {
    "id": st.just(""),
    "files": st.just(""),
    "scope": st.just(PLATFORM) | COURSES,
}
SHADOW = any_of(PolicyShadow, **SHADOWED, number=st.just(0)) | any_of(
    PolicyShadow, **SHADOWED, draft_id=st.just("")
)
"""A message has neither the id nor the files, and either a number or a draft."""
Conversion: TypeAlias = Callable[[Any], Any]
ANSWERS: dict[str, tuple[st.SearchStrategy[Any], Conversion, Conversion]] = {
    "an erasure certificate": (any_of(ErasureCertificate), certificate_message, parse_certificate),
    "a restriction": (any_of(RestrictedSubject), restricted_message, restricted_of),
    "a retention period": (any_of(Versioned[RetentionRule]), period_message, parse_period),
    **{
        f"{each.__name__} of an export": (
            any_of(each),
            lambda item: next(export_messages([item])).items[0],
            parse_export_item,
        )
        for each in typing.get_args(ExportItem)
    },
    **{
        f"{each.__name__} of a preview": (
            any_of(each),
            lambda event: preview_message([event]),
            lambda message: next(parse_preview(message)),
        )
        for each in (Impact, PreviewProgress, PreviewTotals)
    },
    "a comparison of a plan": (
        any_of(Comparison, value=st.booleans() | TEXTS, from_now_us=st.none())
        | any_of(Comparison, value=st.none(), from_now_us=st.integers(-(10**9), 10**9))
        | any_of(Comparison, operator=st.just(Operator.ABSENT), value=st.none(), from_now_us=st.none()),
        lambda comparison: group_message(PlanGroup((), (), comparison)),
        lambda message: parse_group(message).predicate,
    ),
    "a shadow": (
        any_of(
            ShadowReport,
            shadow=SHADOW,
            tally=any_of(ShadowTally, cells=st.lists(any_of(ShadowCount), max_size=3).map(by_checks)),
        ),
        shadow_message,
        parse_shadow,
    ),
    "the changes of a policy": (
        any_of(PolicyDiff, cells=st.lists(any_of(CellChange, course_id=st.none() | IDS)).map(tuple)),
        diff_message,
        parse_diff,
    ),
    "a logged decision": (
        any_of(
            StoredDecision,
            subject=SUBJECT_TEXTS,
            person=SUBJECT_TEXTS,
            resource=st.just("") | TYPES | st.builds(ResourceRef, TYPES, IDS).map(str),
        ),
        decision_message,
        parse_decision,
    ),
}


@pytest.mark.parametrize(("values", "send", "read"), ANSWERS.values(), ids=list(ANSWERS))
@examples(60)
@given(data=st.data())
def test_an_answer_is_read_as_it_was_sent(
    values: st.SearchStrategy[Any], send: Conversion, read: Conversion, data: st.DataObject
) -> None:
    value = data.draw(values)
    message = send(value)
    assert read(type(message).FromString(message.SerializeToString())) == value
