"""The compiled index answers as a plain Casbin enforcer does over the same files."""

from __future__ import annotations

import logging
import random
from functools import cache
from itertools import chain, combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.domain.facts import ALL_FACTS, ATTENDING, FACTS_BY_NAME, fact_names
from authz.domain.ids import PLATFORM, Scope, course_scope
from authz.policy.condition import Condition, parse_condition
from authz.policy.load import load_policy, policy_directory
from authz.policy.situations import closure
from tests.facts import BITS, bits
from tests.policies import POLICY, compiled, written
from tests.policy.reference import decide, reference_enforcer
from tests.properties import examples

logging.getLogger("casbin").setLevel(logging.CRITICAL)

GATES = ("course_archived", "session_ended", "locked", "for_ai_response")
PAIRS = [(t.name, action) for t in POLICY.vocabulary.types.values() for action in t.actions]


def masks_that_matter(type_name: str, action: str) -> list[int]:
    """Each condition just met, each just missed by one fact, with each gate, and nothing and all."""
    met = {
        parse_condition(rule.condition).required
        for rule in POLICY.rules
        if rule.type in ("*", type_name) and rule.action in ("*", action)
    }
    missed = {mask & ~fact for mask in met for fact in BITS if mask & fact}
    gated = {mask | bits(gate) for mask in met for gate in GATES}
    return sorted({0, ALL_FACTS, *met, *missed, *gated})


@cache
def shipped_enforcer() -> Any:
    """Casbin with the shipped policy."""
    return reference_enforcer(policy_directory())


@cache
def enforcer_about(type_name: str, action: str) -> Any:
    """Casbin with the shipped policy, without the rows about other types and actions: they match nothing
    here, and it would try them one by one."""
    enforcer = reference_enforcer(policy_directory())
    enforcer.enable_auto_save(False)
    others = [row for row in enforcer.get_policy() if not speaks_of(row, type_name, action)]
    assert enforcer.remove_policies(others)
    return enforcer


def speaks_of(row: list[str], type_name: str, action: str) -> bool:
    _role, _scope, row_type, row_action, *_ = row
    return row_type in ("*", type_name) and row_action in ("*", action)


def is_named(role: str, type_name: str, action: str) -> bool:
    """Whether a row about the action names the role, or one that it inherits from."""
    return any(
        rule.role != "*"
        and shipped_enforcer().get_role_manager().has_link(role, rule.role)
        and rule.type in ("*", type_name)
        and rule.action in ("*", action)
        for rule in POLICY.rules
    )


@pytest.mark.parametrize(("type_name", "action"), PAIRS)
def test_the_default_policy_answers_as_casbin_for_every_role_and_edge(type_name: str, action: str) -> None:
    enforcer = enforcer_about(type_name, action)
    masks, unnamed = masks_that_matter(type_name, action), 0
    for role in POLICY.vocabulary.roles:
        unnamed += not is_named(role, type_name, action)
        # Only the rows for every role speak to a role that no row names, so one such role is tried with all.
        for mask in masks if is_named(role, type_name, action) or unnamed == 1 else (0, ALL_FACTS):
            ours = decide(POLICY, frozenset([role]), course_scope("x"), type_name, action, mask)
            theirs = enforcer.enforce((role,), "course:x", type_name, action, fact_names(mask))
            assert ours.allowed == theirs, (role, type_name, action, fact_names(mask))


def test_the_default_policy_answers_as_casbin_for_sets_of_roles_and_random_facts() -> None:
    enforcer = shipped_enforcer()
    roles = list(POLICY.vocabulary.roles)
    sets = list(chain.from_iterable(combinations(roles, size) for size in (0, 2, 3)))
    rng = random.Random(7)
    for held in rng.sample(sets, 120):
        for type_name, action in rng.sample(PAIRS, 8):
            mask = rng.getrandbits(14)
            ours = decide(POLICY, frozenset(held), PLATFORM, type_name, action, mask)
            theirs = enforcer.enforce(held, "platform", type_name, action, fact_names(mask))
            assert ours.allowed == theirs, (held, type_name, action, fact_names(mask))


ROLES = ("owner", "teacher", "student", "guest")
TYPES = {"notebook": ("read", "update"), "quiz": ("read", "grade")}
DECLARATIONS = [
    "role, owner, course, 3, yes,",
    "role, teacher, course, 2, yes,",
    "role, student, course, 1, no,",
    "role, guest, session, 1, no,",
    *(f"type, {name}, {'|'.join(actions)}" for name, actions in TYPES.items()),
]
FACTS = list(FACTS_BY_NAME)


@st.composite
def rows(draw: st.DrawFn, scopes: list[str], effects: list[str]) -> str:
    """A row; empty instead of one whose condition never holds, which is refused when it is loaded. A guest
    has that role in a session, and so attends it."""
    role = draw(st.sampled_from([*ROLES, "*"]))
    scope = draw(st.sampled_from(scopes))
    type_name = draw(st.sampled_from([*TYPES, "*"]))
    action = draw(st.sampled_from([*TYPES.get(type_name, ("read", "update", "grade")), "*"]))
    effect = draw(st.sampled_from(effects))
    names = draw(st.lists(st.sampled_from(FACTS), max_size=3, unique=True))
    condition = " & ".join("!" * (effect == "deny" and draw(st.booleans())) + name for name in names)
    always = Condition(required=ATTENDING) if role == "guest" else Condition()
    if closure(parse_condition(condition), always) is None:
        return ""
    return f"p, {role}, {scope}, {type_name}, {action}, {condition}, {effect}"


@st.composite
def policies(draw: st.DrawFn) -> str:
    lines = list(DECLARATIONS)
    if draw(st.booleans()):
        lines.append("g, owner, teacher")
    if draw(st.booleans()):
        lines.append("g, teacher, student")
    scopes, effects = ["*", "*", "course:a", "course:b"], ["allow", "allow", "deny"]
    rules = draw(st.sets(rows(scopes, effects), max_size=12))
    return "\n".join([*lines, *sorted(rules - {""} or ["p, *, *, *, *, , allow"])]) + "\n"


@examples(60)
@given(text=policies(), data=st.data())
def test_random_policies_answer_as_casbin(
    tmp_path_factory: pytest.TempPathFactory, text: str, data: st.DataObject
) -> None:
    folder = written(tmp_path_factory.mktemp("policy"), text)
    policy, enforcer = load_policy(folder), reference_enforcer(folder)
    for _ in range(12):
        roles = tuple(data.draw(st.sets(st.sampled_from(ROLES))))
        scope = data.draw(st.sampled_from([course_scope("a"), course_scope("c"), PLATFORM]))
        type_name = data.draw(st.sampled_from(list(TYPES)))
        action = data.draw(st.sampled_from(TYPES[type_name]))
        mask = data.draw(st.integers(0, 2**14 - 1))
        ours = decide(policy, frozenset(roles), scope, type_name, action, mask)
        theirs = enforcer.enforce(roles, str(scope), type_name, action, fact_names(mask))
        assert ours.allowed == theirs


def test_casbin_reads_the_rules_and_links_and_skips_the_declarations() -> None:
    enforcer = reference_enforcer(policy_directory())
    ours = [[r.role, r.scope, r.type, r.action, r.condition, r.effect] for r in POLICY.rules]
    assert enforcer.get_policy() == ours
    assert enforcer.get_grouping_policy() == [["owner", "teacher"]]


def test_without_roles_nothing_is_ever_allowed() -> None:
    for type_name, action in PAIRS:
        for mask in masks_that_matter(type_name, action):
            assert not decide(POLICY, frozenset(), course_scope("x"), type_name, action, mask).allowed


def test_the_nearest_rule_is_named_with_the_facts_it_misses() -> None:
    verdict = decide(POLICY, frozenset(["student"]), course_scope("x"), "message", "update", bits("own"))
    assert verdict.rule is not None
    assert verdict.rule.condition == "own & within_edit_window"
    assert fact_names(verdict.unmet) == ("within_edit_window",)


def test_an_override_speaks_of_its_own_course_only() -> None:
    rows = "p, student, course:a, quiz, read, , allow\np, *, course:b, *, *, , deny\n"
    policy = compiled("\n".join(DECLARATIONS) + "\n" + rows)
    student = frozenset(["student"])

    def allowed(scope: Scope) -> bool:
        return decide(policy, student, scope, "quiz", "read", 0).allowed

    assert allowed(course_scope("a"))
    assert not allowed(course_scope("b"))
    assert not allowed(course_scope("c"))
    assert not allowed(PLATFORM)
