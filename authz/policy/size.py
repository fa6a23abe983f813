"""Limits on the size of a policy. Within them, a server loads, proves and compares it in seconds.

A row with `*` concerns every role and action, so a small file can state much.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from authz.domain.decisions import Rule
from authz.domain.vocabulary import Vocabulary
from authz.policy.locks import cells_of
from authz.policy.rows import Faults, Row
from authz.policy.rules import inheritors_of

MAX_ROWS = {"role": 250, "g": 500, "lock": 250}
"""Of each kind of row."""
MAX_ACTIONS = 500
"""Of all types together."""
MAX_CELLS = 250_000
"""The roles, types and actions that the rules concern, counted for each rule."""
MAX_RULES_OF_A_CELL = 32
"""With one effect about one role, type and action, of one scope: the time of a proof may double with each."""
MAX_INVARIANTS = 250


def require_few_rows(rows: Sequence[Row], faults: Faults) -> None:
    """Raise `PolicyError` with all faults so far if there are too many rows or actions to read them."""
    before = len(faults)
    for kind, most in MAX_ROWS.items():
        found = [row for row in rows if row.kind == kind]
        if len(found) > most:
            faults.at(found[most], 0, f"is `{kind}` row {most + 1}; a policy has at most {most}")
    actions = 0
    for row in rows:
        if row.kind == "type":
            actions += sum(text.count("|") + 1 for text in row.texts[1:])
            if actions > MAX_ACTIONS:
                faults.at(row, 0, f"declares action {MAX_ACTIONS + 1}; the types have at most {MAX_ACTIONS}")
                break
    if len(faults) > before:
        faults.require_none()


def check_cells(
    rules: Sequence[Rule],
    rows: Sequence[Row],
    vocabulary: Vocabulary,
    inherited: Mapping[str, frozenset[str]],
    faults: Faults,
) -> None:
    """Record a fault for the first rule that is one too many. `rows` have no other fault."""
    count, of_cells = 0, Counter[tuple[str, ...]]()
    of_rules = (row for row in rows if row.kind == "p")
    for rule, row in zip(rules, of_rules, strict=True):
        cells = list(cells_of(rule, vocabulary, inheritors_of(rule.role, inherited)))
        count += len(cells)
        if count > MAX_CELLS:
            problem = f"the rules concern more than {MAX_CELLS} roles and actions, counted for each rule"
            faults.at(row, 0, f"{problem}; write fewer with `*`")
            return
        for role, type_name, action in cells:
            of_cells[rule.scope, rule.effect, role, type_name, action] += 1
            if of_cells[rule.scope, rule.effect, role, type_name, action] > MAX_RULES_OF_A_CELL:
                problem = f"is {rule.effect} row {MAX_RULES_OF_A_CELL + 1} about `{action}` on {type_name}"
                faults.at(row, 0, f"{problem} for `{role}`; write at most {MAX_RULES_OF_A_CELL}")
                return
