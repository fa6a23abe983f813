"""Conditions are joined into the fewest, without comparing each with each."""

from __future__ import annotations

from itertools import product

from authz.domain.facts import FACTS_BY_NAME, mask_of
from authz.policy.condition import Condition
from authz.policy.regions import simplest
from tests.steps import count_steps

NAMES = (
    "own",
    "published",
    "locked",
    "ai_enabled",
    "for_ai_response",
    "attending",
    "session_live",
    "shared_view",
)


def every_case(count: int) -> list[Condition]:
    """All combinations of some facts."""
    facts = [FACTS_BY_NAME[name] for name in NAMES[:count]]
    masks = (
        mask_of(fact for fact, holds in zip(facts, case, strict=True) if holds)
        for case in product((0, 1), repeat=count)
    )
    return [Condition(mask, mask_of(facts) & ~mask) for mask in masks]


def test_all_cases_are_no_condition() -> None:
    assert simplest(every_case(5)) == [Condition()]


def test_all_cases_but_one_are_a_condition_for_each_fact() -> None:
    but_none = [each for each in every_case(5) if each.required]
    assert simplest(but_none) == sorted(Condition(FACTS_BY_NAME[name].bit) for name in NAMES[:5])


def test_four_times_as_many_conditions_take_about_four_times_as_many_steps() -> None:
    few, many = ([each for each in every_case(count) if each.required.bit_count() % 2] for count in (6, 8))
    assert count_steps(lambda: simplest(many)) < 8 * count_steps(lambda: simplest(few))
