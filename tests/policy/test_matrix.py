"""Every cell of the default policy, allowed when its facts hold and denied when one of them does not."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from authz.domain.decisions import Reason
from authz.domain.ids import course_scope
from authz.policy.condition import parse_condition
from tests.facts import BITS, bits
from tests.policies import POLICY
from tests.policy.reference import decide

MATRIX = tomllib.loads((Path(__file__).parent.parent / "cases/matrix.toml").read_text())
CELLS = [
    (row, role, cell)
    for row, cells in MATRIX["rows"].items()
    for role, cell in zip(MATRIX["columns"], cells, strict=True)
]
GATE_FACTS = [bits(name) for name in MATRIX["gates"]]
HERE = course_scope("here")


def masks_of(cell: str) -> list[int]:
    """The alternatives of a cell as masks."""
    if cell == "-":
        return []
    return [0] if cell == "yes" else [parse_condition(part.strip()).required for part in cell.split(";")]


@pytest.mark.parametrize(("row", "role", "cell"), CELLS)
def test_a_cell_allows_exactly_when_one_of_its_alternatives_holds(row: str, role: str, cell: str) -> None:
    type_name, action = row.split()
    alternatives = masks_of(cell)
    facts = [fact for fact in BITS if fact not in GATE_FACTS or action == "ai_process"]
    facts = [f for f in facts if f != bits("locked") and f != bits("course_archived")]
    asked = [fact for fact in facts if any(mask & fact for mask in alternatives)]
    for number in range(2 ** len(asked)):
        mask = sum(int(fact) for place, fact in enumerate(asked) if number >> place & 1)
        expected = any(mask & need == need for need in alternatives)
        verdict = decide(POLICY, frozenset([role]), HERE, type_name, action, mask)
        if action != "ai_process" and mask & bits("for_ai_response"):
            expected = False
        assert verdict.allowed is expected, (row, role, mask)
        if not alternatives:
            assert verdict.reason is Reason.NO_RULE


def test_the_matrix_and_the_policy_know_the_same_actions() -> None:
    declared = POLICY.vocabulary.resource_types.values()
    known = {f"{t.name} {action}" for t in declared for action in t.actions}
    assert set(MATRIX["rows"]) == known


@pytest.mark.parametrize("gate", sorted(MATRIX["gates"]))
def test_a_gate_denies_its_actions_to_every_role_and_no_other(gate: str) -> None:
    everything = sum(fact for fact in BITS if fact not in GATE_FACTS)
    for row, role, cell in CELLS:
        type_name, action = row.split()
        verdict = decide(POLICY, frozenset([role]), HERE, type_name, action, everything | bits(gate))
        if action in MATRIX["gates"][gate]:
            assert verdict.reason is Reason.EXPLICIT_DENY, (row, role)
        elif cell != "-" and action != "ai_process":
            assert verdict.allowed, (row, role)


def test_a_deny_stops_a_subject_whatever_other_roles_it_holds() -> None:
    held = frozenset(POLICY.vocabulary.roles)
    verdict = decide(POLICY, held, HERE, "notebook", "update", bits("own", "locked"))
    assert verdict.reason is Reason.EXPLICIT_DENY


def test_platform_roles_have_no_rule_on_content() -> None:
    everything = sum(fact for fact in BITS if fact not in GATE_FACTS)
    for name in ("platform_admin", "privacy_officer", "support_agent"):
        for row in MATRIX["rows"]:
            type_name, action = row.split()
            verdict = decide(POLICY, frozenset([name]), HERE, type_name, action, everything)
            may = name == "platform_admin" and row in (
                "course create",
                "course archive",
                "course delete",
                "course edit_policy",
            )
            assert verdict.allowed is may, (name, row)
