"""The index: which rule is named, what overrides reach, and which facts are asked for."""

from __future__ import annotations

from itertools import product

import pytest

from authz.domain.decisions import Reason, Rule
from authz.domain.errors import PolicyError
from authz.domain.facts import fact_names
from authz.domain.ids import PLATFORM, course_scope, session_scope
from authz.policy.compile import Clause, CompiledPolicy, CompiledRules
from authz.policy.condition import Condition
from authz.policy.load import POLICY_FILE, compile_files, load_policy, policy_directory
from tests.facts import BITS, bits
from tests.policies import SHIPPED, compiled, with_rows
from tests.policy.reference import decide

HERE = course_scope("here")
DECLARED = """\
role, owner, course, 3, yes,
role, teacher, course, 2, yes,
role, student, course, 1, no,
type, quiz, read|grade
type, poll, read|vote
g, owner, teacher
"""


def policy_of(rules: str) -> CompiledPolicy:
    """A policy of the declarations above, six lines, and these rules from line 7 on."""
    return compiled(DECLARED + rules)


def roles(*names: str) -> frozenset[str]:
    return frozenset(names)


def test_of_several_matching_denies_the_first_in_the_file_is_named() -> None:
    policy = policy_of(
        "p, student, *, quiz, read, , allow\n"
        "p, student, course:here, quiz, read, own, deny\n"
        "p, *, *, *, read, locked, deny\n",
    )
    verdict = decide(policy, roles("student"), HERE, "quiz", "read", bits("own", "locked"))
    assert verdict.reason is Reason.EXPLICIT_DENY
    assert verdict.rule is not None
    assert verdict.rule.source == "default.csv:8"
    elsewhere = decide(policy, roles("student"), PLATFORM, "quiz", "read", bits("own", "locked"))
    assert elsewhere.rule is not None
    assert elsewhere.rule.source == "default.csv:9"


def test_of_several_matching_allows_the_first_in_the_file_is_named() -> None:
    policy = policy_of("p, student, *, quiz, read, own, allow\np, teacher, *, quiz, read, , allow\n")
    both = roles("student", "teacher")
    assert [
        verdict.rule.source
        for facts in (bits("own"), 0)
        if (verdict := decide(policy, both, HERE, "quiz", "read", facts)).rule is not None
    ] == ["default.csv:7", "default.csv:8"]


def test_an_inheriting_role_has_the_rules_of_its_base_and_not_the_other_way_round() -> None:
    policy = policy_of("p, teacher, *, quiz, grade, , allow\np, owner, course:here, poll, vote, , allow\n")
    assert decide(policy, roles("owner"), HERE, "quiz", "grade", 0).allowed
    assert decide(policy, roles("owner"), HERE, "poll", "vote", 0).allowed
    assert not decide(policy, roles("teacher"), HERE, "poll", "vote", 0).allowed


def test_a_wildcard_reaches_every_role_type_and_action_but_no_one_without_a_role() -> None:
    policy = policy_of("p, *, *, *, *, , allow\n")
    for type_name, action in (("quiz", "grade"), ("poll", "vote")):
        assert decide(policy, roles("student"), HERE, type_name, action, 0).allowed
        nobody = decide(policy, roles(), HERE, type_name, action, 0)
        assert nobody.reason is Reason.NO_RULE


def test_a_role_that_is_not_declared_has_nothing_even_by_a_wildcard() -> None:
    policy = policy_of("p, *, *, *, *, , allow\n")
    assert not decide(policy, roles("retired_role"), HERE, "quiz", "read", 0).allowed


def test_the_rule_that_misses_fewest_facts_is_nearest() -> None:
    policy = policy_of(
        "p, student, *, quiz, read, published & attending, allow\n"
        "p, student, *, quiz, read, own & shared_view & published, allow\n",
    )
    verdict = decide(policy, roles("student"), HERE, "quiz", "read", bits("own", "shared_view"))
    assert verdict.reason is Reason.CONDITION_NOT_MET
    assert verdict.rule is not None
    assert verdict.rule.source == "default.csv:8"
    assert fact_names(verdict.unmet) == ("published",)


def test_the_facts_asked_for_are_those_of_the_roles_at_hand_and_of_this_course_alone() -> None:
    policy = policy_of(
        "p, student, *, quiz, read, published, allow\n"
        "p, teacher, *, quiz, read, own, allow\n"
        "p, *, *, *, read, locked, deny\n"
        "p, student, course:here, quiz, read, attending, allow\n",
    )

    def asked(course_id: str | None, type_name: str, action: str, *names: str) -> int:
        return policy.rules_for(roles(*names), course_id, type_name, action).required_facts

    for course_id in (None, "there"):
        assert asked(course_id, "quiz", "read", "student") == bits("published", "locked")
        both = bits("published", "own", "locked")
        assert asked(course_id, "quiz", "read", "student", "teacher") == both
    assert asked("here", "quiz", "read", "student") == bits("published", "locked", "attending")
    assert asked("here", "poll", "read", "student") == bits("locked")
    assert asked("here", "poll", "vote", "student") == 0
    assert asked("here", "quiz", "read") == 0


def test_facts_that_are_not_asked_for_never_change_an_answer() -> None:
    policy = load_policy(policy_directory())
    for declared in policy.vocabulary.types.values():
        for action in declared.actions:
            for role in policy.vocabulary.roles:
                rules = policy.rules_for(roles(role), HERE.id, declared.name, action)
                asked = rules.required_facts
                others = sum(fact for fact in BITS if not fact & asked)
                for facts in (0, asked, asked & bits("own"), asked & bits("published")):
                    answers = [rules.verdict(mask) for mask in (facts, facts | others)]
                    assert answers[0] == answers[1], (role, declared.name, action)


def test_overrides_of_thousands_of_courses_stay_apart() -> None:
    rows = "".join(f"p, student, course:c{number}, quiz, grade, own, allow\n" for number in range(5000))
    policy = policy_of("p, student, *, quiz, read, , allow\n" + rows)
    verdict = decide(policy, roles("student"), course_scope("c4999"), "quiz", "grade", bits("own"))
    assert verdict.rule is not None
    assert verdict.rule.scope == "course:c4999"
    assert decide(policy, roles("student"), course_scope("c5000"), "quiz", "grade", bits("own")).reason is (
        Reason.NO_RULE
    )
    assert decide(policy, roles("student"), session_scope("c4999"), "quiz", "grade", bits("own")).reason is (
        Reason.NO_RULE
    )


def test_the_version_changes_with_any_byte_and_with_nothing_else() -> None:
    rules = "p, student, *, quiz, read, , allow\n"
    first = policy_of(rules).version
    assert policy_of(rules).version == first
    assert policy_of(rules + "# reviewed\n").version != first
    assert len(first) == 12


@pytest.mark.parametrize("name", ["teacher", "student"])
def test_the_rules_are_kept_as_written_with_where_they_stand(name: str) -> None:
    lines = (policy_directory() / POLICY_FILE).read_text().splitlines()
    for rule in load_policy(policy_directory()).rules:
        if rule.role == name:
            place = int(rule.source.removeprefix(f"{POLICY_FILE}:"))
            written = [field.strip() for field in lines[place - 1].split(",")]
            assert written == [
                "p",
                rule.role,
                rule.scope,
                rule.type,
                rule.action,
                rule.condition,
                rule.effect,
            ]


def test_a_published_version_is_compiled_as_when_it_was_validated() -> None:
    published, validated = compile_files(SHIPPED, is_published=True), compile_files(SHIPPED)
    assert (published.version, published.rules, published.locks) == (
        validated.version,
        validated.rules,
        validated.locks,
    )
    with pytest.raises(PolicyError, match="unknown role `nobody`"):
        compile_files(with_rows("p, nobody, *, notebook, read, , allow"), is_published=True)


CONDITIONS = [Condition(required, other & ~required) for required in range(4) for other in range(4)]
"""Over two facts."""
RULE = Rule("student", "*", "quiz", "read", "", "", "default.csv:7")


def test_rules_may_allow_what_they_allow_for_some_facts_between_the_certain_and_the_possible() -> None:
    """A list leaves out a whole scope by this, so it may never be false where a check would allow."""
    clauses = [[], *([Clause(condition, RULE, 0)] for condition in CONDITIONS)]
    for denies, allows, certain, more in product(clauses, clauses, range(4), range(4)):
        rules, possible = CompiledRules(denies, allows), certain | more
        between = {certain | facts & possible for facts in range(4)}
        if any(rules.verdict(facts).allowed for facts in between):
            assert rules.may_allow(certain, possible)
        if len(between) == 1:
            assert rules.may_allow(certain, possible) is rules.verdict(certain).allowed
