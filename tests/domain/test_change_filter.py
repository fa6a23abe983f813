"""Which changes a watcher is told, by where they are and what they are of."""

from __future__ import annotations

import pytest

from authz.domain.change_filter import ChangeFilter
from authz.domain.entities import (
    Account,
    Course,
    CourseKey,
    Entity,
    EntityKind,
    Membership,
    Resource,
    Session,
    Share,
    ShareLevel,
)
from authz.domain.ids import PLATFORM, ResourceRef, Scope, course_scope, parse_subject, session_scope
from authz.domain.mutations import Change, ChangePart, ChangeScope, Mutation, Operation

MAYA = parse_subject("user:maya")
C, S = course_scope("c"), session_scope("s")
IN_C, IN_S, ALONE, NOWHERE = ChangeScope("c"), ChangeScope("c", "s"), ChangeScope(None, "s"), ChangeScope()
NOTE = Resource(type="session_note", id="n", scope=S)
SHARE = Share(resource=ResourceRef("session_note", "n"), subject=MAYA, level=ShareLevel.VIEWER)


@pytest.mark.parametrize(
    ("entity", "place", "told_in"),
    [
        (Course(id="c"), IN_C, {C}),
        (Session(id="s", course_id="c"), IN_S, {C, S}),
        (Session(id="s"), ALONE, {S}),
        (Membership(subject=MAYA, scope=C, role="student"), IN_C, {C}),
        (Membership(subject=MAYA, scope=S, role="guest"), IN_S, {C, S}),
        (NOTE, IN_S, {C, S}),
        (SHARE, IN_S, {C, S}),
        (SHARE, ALONE, {S}),
        (Membership(subject=MAYA, scope=PLATFORM, role="officer"), NOWHERE, {PLATFORM}),
        (Account(subject=MAYA), NOWHERE, {PLATFORM}),
        (Course(id="c"), NOWHERE, {C, S, PLATFORM}),
        (SHARE, NOWHERE, {C, S, PLATFORM}),
    ],
)
def test_a_change_is_told_in_every_scope_that_it_is_in_or_may_be_in(
    entity: Entity, place: ChangeScope, told_in: set[Scope]
) -> None:
    mutation = Mutation(Operation.DELETE, entity)
    scopes = {C, S, PLATFORM}
    for scope in scopes:
        told = ChangeFilter(scopes=frozenset({scope})).matches(mutation, place)
        assert told is (scope in told_in)
    assert ChangeFilter(scopes=frozenset(scopes)).matches(mutation, place)
    assert ChangeFilter().matches(mutation, place)


def test_scope_and_kind_must_both_match() -> None:
    wanted = ChangeFilter(scopes=frozenset({C}), kinds=frozenset({EntityKind.SHARE, EntityKind.COURSE}))
    mutations = tuple(Mutation(Operation.TOUCH, e) for e in (Course(id="c"), NOTE, SHARE, Course(id="d")))
    change = Change(
        revision=1,
        committed_at=0,
        nonce=0,
        actor="",
        reason="",
        request_id="",
        mutations=mutations,
        scopes=(IN_C, IN_S, IN_S, ChangeScope("d")),
    )
    assert wanted.select(ChangePart(change, is_last=True)) == (mutations[0], mutations[2])


def test_of_what_is_deleted_by_its_key_alone_the_kind_is_known() -> None:
    mutation = Mutation(Operation.DELETE, CourseKey("c"))
    assert ChangeFilter(kinds=frozenset({EntityKind.COURSE})).matches(mutation, IN_C)
    assert not ChangeFilter(kinds=frozenset({EntityKind.SHARE})).matches(mutation, IN_C)
