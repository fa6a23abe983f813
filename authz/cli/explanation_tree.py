"""Prints an explanation as a tree."""

from __future__ import annotations

import datetime as dt
import re

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from authz.cli.check import answer_line
from authz.cli.output import time_text
from authz.client.explanations import ExplainedFact, ExplainedMembership, ExplainedRule, Explanation
from authz.domain.decisions import Reason

_UNBOUNDED_WIDTH = 100_000
"""So that the terminal wraps a long line: rich would cut it off."""


def print_tree(explanation: Explanation) -> None:
    """Print what led to an answer, and what would allow it; no line is wrapped or cut off."""
    root = Tree(Text(answer_line(explanation.answer)))
    if explanation.answer.rule:
        root.add(Text(f"{'decided by' if explanation else 'nearest rule'}: {explanation.answer.rule}"))
    memberships = [_membership_line(each) for each in explanation.memberships]
    if explanation.account_suspended:
        memberships.append(f"the account is suspended{_until(explanation.account_suspended_until)}")
    if explanation.restricted:
        memberships.append("the processing of the person's data is restricted")
    nothing = "none" if explanation.answer.reason == Reason.NOT_A_MEMBER else "not looked at"
    _add(root, "memberships", memberships or [nothing])
    named = {name for each in explanation.rules for name in re.findall(r"[a-z_]+", each.rule.split(", ")[-2])}
    _add(root, "facts", [_fact_line(each) for each in explanation.facts if each.name in named])
    _add(root, "rules", [_rule_line(each) for each in explanation.rules])
    _add(
        root,
        "would be allowed",
        [" and ".join(change.text for change in changes) for changes in explanation.nearest_grants],
    )
    if explanation.allowed_from:
        root.add(Text(f"allowed by time alone from: {time_text(explanation.allowed_from)}"))
    root.add(Text(f"to the person: {explanation.message}"))
    Console(highlight=False, width=_UNBOUNDED_WIDTH).print(root)


def _add(root: Tree, label: str, lines: list[str]) -> None:
    if lines:
        branch = root.add(Text(label))
        for line in lines:
            branch.add(Text(line))


def _membership_line(each: ExplainedMembership) -> str:
    if not each.gives:
        what = f"gives no role ({each.inactive_reason}){_until(each.suspended_until)}"
    elif each.counts:
        what = f"gives {each.gives}"
    else:
        what = f"gives {each.gives}, which does not count for content"
    starts = f" from {time_text(each.starts_at)}" if each.starts_at else ""
    return f"{each.role} in {each.scope}{starts}{_until(each.ends_at)}: {what}"


def _rule_line(each: ExplainedRule) -> str:
    unmet = ", ".join(each.unmet_facts)
    return f"{'matches' if each.matches else f'not met ({unmet})'}: {each.rule}"


def _until(time: dt.datetime | None) -> str:
    return f" until {time_text(time)}" if time else ""


def _fact_line(each: ExplainedFact) -> str:
    given = ", ".join(f"{name}: {value or '-'}" for name, value in each.inputs.items() if name != "now")
    return f"{each.name}: {'yes' if each.holds else 'no'} ({given})"
