"""Nearest grants: of facts that a deny row negates, and for many roles in few steps."""

from __future__ import annotations

import random
from typing import Any

import pytest

from authz.domain.decisions import Question, Reason
from authz.domain.effective_roles import EffectiveRoles, MembershipTerms, effective_roles_of
from authz.domain.entities import Course, CourseState, Entity, Membership, MembershipStatus, Resource
from authz.domain.facts import ALL_FACTS, FACTS, consequences
from authz.domain.ids import ResourceRef, ScopeKind, course_scope
from authz.engine import nearest
from authz.engine.check import Checker
from authz.engine.explain import explain
from tests.engine.campus import Campus
from tests.engine.generators import NOW, TEXT, compiled
from tests.policies import POLICY
from tests.store.directory import user

MAYA, HERE = user("maya"), course_scope("algebra")
CAMPUS: list[Entity] = [
    Course(id="algebra", state=CourseState.ACTIVE, ai_enabled=True),
    Membership(subject=MAYA, scope=HERE, role="student"),
    Resource(type="material", id="text", scope=HERE, owner=user("nadia"), published=True, ai_allowed=False),
    Resource(type="notebook", id="n", scope=HERE, owner=user("nadia")),
    Resource(type="message", id="late", scope=HERE, owner=MAYA, locked=True),
]


@pytest.mark.parametrize(
    ("row", "ref", "told"),
    [
        ("material, read, !ai_enabled", ResourceRef("material", "text"), [["ai_enabled"]]),
        (
            "message, read, locked & !shared_view",
            ResourceRef("message", "late"),
            [["shared_view"], ["locked"]],
        ),
        ("message, read, !session_live", ResourceRef("message", "late"), []),
    ],
)
def test_a_deny_because_a_fact_does_not_hold_is_lifted_by_the_fact(
    row: str, ref: ResourceRef, told: list[list[str]]
) -> None:
    checker = Checker(compiled([*TEXT.splitlines(), f"p, *, *, {row}, deny"]))
    found = explain(checker, Campus(CAMPUS), Question(MAYA, "read", ref), NOW)
    assert found.decision.reason is Reason.EXPLICIT_DENY
    assert [[change.fact for change in changes] for changes in found.nearest_grants] == told


NAMES = [
    fact.name
    for fact in FACTS
    if fact.name
    not in {
        "course_archived",
        "shared_edit",
        "session_visible",
        "session_ended",
        "attending",
        "for_ai_response",
    }
]
"""Facts of which a row may name any."""


def test_a_search_through_many_denies_looks_at_few_situations(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[object] = []

    def counted(on: int, off: int) -> tuple[int, int] | None:
        looked_at.append((on, off))
        return consequences(on, off)

    monkeypatch.setattr(nearest, "consequences", counted)
    chance = random.Random(4)
    rows = dict.fromkeys(
        f"{' & '.join(prefix + name for prefix, name in zip(prefixes, sorted(some), strict=True))}, {effect}"
        for effect, choice in (("allow", ("",)), ("deny", ("", "!")))
        for some in [chance.sample(NAMES, 5) for _ in range(30)]
        for prefixes in [chance.choices(choice, k=5)]
    )
    policy = compiled([*TEXT.splitlines(), *(f"p, student, *, notebook, export, {row}" for row in rows)])
    explain(Checker(policy), Campus(CAMPUS), Question(MAYA, "export", ResourceRef("notebook", "n")), NOW)
    assert len(looked_at) < 1000


def denied(memberships: tuple[MembershipTerms, ...]) -> nearest.Denial:
    """Somebody with these memberships, none of which gives a role."""
    return nearest.Denial(
        type_name="notebook",
        action="export",
        is_content=True,
        course_id=None,
        course_policy="",
        kinds=tuple(ScopeKind),
        course_state=CourseState.ACTIVE,
        open_to_course=False,
        memberships=memberships,
        suspensions=(),
        facts=0,
        fixed=ALL_FACTS,
    )


def count_tried(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Collects the combinations of roles that are tried from now on."""
    tried: list[object] = []

    def counted(*arguments: Any) -> EffectiveRoles:
        tried.append(arguments)
        assert len(tried) <= nearest.MAX_ROLE_SETS
        return effective_roles_of(*arguments)

    monkeypatch.setattr(nearest, "effective_roles_of", counted)
    return tried


def test_somebody_with_dozens_of_memberships_that_give_no_role_is_told_no_nearest_grants(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = count_tried(monkeypatch)
    roles = [f"role, {kind}_{number}, {kind}, 5, yes," for kind in ScopeKind for number in range(60)]
    policy = compiled([*roles, *TEXT.splitlines()])
    invited = tuple(
        MembershipTerms(role.scope_kind, role.name, MembershipStatus.INVITED)
        for role in policy.vocabulary.roles.values()
    )
    for memberships in (invited, invited[::12]):
        assert nearest.nearest_grants(policy, denied(memberships)) == ()
    assert tried


@pytest.mark.parametrize("status", [MembershipStatus.SUSPENDED, MembershipStatus.INVITED])
def test_few_combinations_are_tried_for_somebody_who_has_every_role_but_may_use_none(
    status: MembershipStatus, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = count_tried(monkeypatch)
    roles = POLICY.vocabulary.roles.values()
    memberships = tuple(MembershipTerms(role.scope_kind, role.name, status) for role in roles)
    assert nearest.nearest_grants(POLICY, denied(memberships)) == ()
    assert len(tried) < 1000
