"""What must hold of every policy, as data: `invariants.toml`, resolved against the names of a policy."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import TypeAlias

import msgspec

from authz.domain.facts import FACTS_BY_NAME
from authz.domain.ids import ScopeKind
from authz.domain.toml import parse_toml
from authz.domain.vocabulary import Vocabulary, suggest
from authz.policy.condition import Condition, condition_terms, parse_condition
from authz.policy.rows import Faults
from authz.policy.situations import closure
from authz.policy.size import MAX_INVARIANTS

INVARIANTS_FILE = "invariants.toml"

Cells: TypeAlias = frozenset[tuple[str, str]]
"""Pairs of a type and an action."""


class Never(msgspec.Struct, frozen=True, tag="never"):
    """None of the roles lets its holder perform one of the actions while the condition holds."""

    name: str
    says: str
    cells: Cells
    roles: frozenset[str]
    when: Condition


class Gaining(msgspec.Struct, frozen=True, tag="gaining"):
    """Who gains a role that no deny row names keeps every access to the actions."""

    name: str
    says: str
    cells: Cells


Invariant: TypeAlias = Never | Gaining


class _Selection(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One table of the file. What is left out selects everything."""

    says: str
    types: list[str] | None = None
    except_types: list[str] = []
    actions: list[str] | None = None
    except_actions: list[str] = []


class _NeverTable(_Selection, forbid_unknown_fields=True, kw_only=True):
    roles: list[str] | None = None
    except_roles: list[str] = []
    rank_below: int | None = None
    kind: ScopeKind | None = None
    when: str = ""


class _File(msgspec.Struct, forbid_unknown_fields=True):
    never: dict[str, _NeverTable] = {}
    gaining: dict[str, _Selection] = {}


def read_invariants(files: Mapping[str, str], vocabulary: Vocabulary) -> tuple[Invariant, ...]:
    """The invariants among the files of a policy, in the order of their file; none without it.

    Raises `PolicyError` with every fault: a name that the policy does not declare, a condition that never
    holds, a table that selects nothing.
    """
    faults = Faults()
    found = _resolve(files.get(INVARIANTS_FILE, ""), vocabulary, faults)
    faults.require_none()
    return found


def _resolve(text: str, vocabulary: Vocabulary, faults: Faults) -> tuple[Invariant, ...]:
    try:
        tables = msgspec.convert(parse_toml(text), _File)
    except ValueError as error:
        faults.add(INVARIANTS_FILE, 1, 1, f"cannot be read: {str(error).lower()}; see docs/policies.md")
        return ()
    if len(tables.never) + len(tables.gaining) > MAX_INVARIANTS:
        faults.add(INVARIANTS_FILE, 1, 1, f"has more than {MAX_INVARIANTS} invariants; write fewer")
        return ()
    found: list[Invariant] = []
    for kind, name, table in (
        *(("never", name, table) for name, table in tables.never.items()),
        *(("gaining", name, table) for name, table in tables.gaining.items()),
    ):
        reader = _Reader(vocabulary, faults, _line_of(text, kind, name))
        cells = reader.cells(table)
        if isinstance(table, _NeverTable):
            found.append(Never(name, table.says, cells, reader.roles(table), reader.condition(table.when)))
        else:
            found.append(Gaining(name, table.says, cells))
    return tuple(found)


def _line_of(text: str, kind: str, name: str) -> int:
    header = re.search(rf"^[ \t]*\[\s*{kind}\s*\.\s*[\"']?{re.escape(name)}[\"']?\s*\]", text, re.MULTILINE)
    return text.count("\n", 0, header.start()) + 1 if header else 1


class _Reader:
    """Resolves the names of one table. A fault is recorded at the line of its header."""

    def __init__(self, vocabulary: Vocabulary, faults: Faults, line: int) -> None:
        self._vocabulary, self._faults, self._line = vocabulary, faults, line

    def cells(self, table: _Selection) -> Cells:
        actions = {action for _, action in self._vocabulary.actions}
        self._known("type", (*(table.types or ()), *table.except_types), self._vocabulary.types)
        self._known("action", (*(table.actions or ()), *table.except_actions), actions)
        found = frozenset(
            (name, action)
            for name, action in self._vocabulary.actions
            if (table.types is None or name in table.types)
            and name not in table.except_types
            and (table.actions is None or action in table.actions)
            and action not in table.except_actions
        )
        if not found:
            self._fault("selects no action of any type; widen `types` or `actions`")
        return found

    def roles(self, table: _NeverTable) -> frozenset[str]:
        declared = self._vocabulary.roles
        self._known("role", (*(table.roles or ()), *table.except_roles), declared)
        return frozenset(
            role.name
            for role in declared.values()
            if (table.roles is None or role.name in table.roles)
            and role.name not in table.except_roles
            and (table.rank_below is None or role.rank < table.rank_below)
            and (table.kind is None or role.scope_kind is table.kind)
        )

    def condition(self, text: str) -> Condition:
        names = [name for name, _ in condition_terms(text)]
        if not self._known("fact", names, FACTS_BY_NAME):
            return Condition()
        condition = parse_condition(text)
        if closure(condition) is None:
            self._fault(f"`when` never holds: `{text}` contradicts itself; remove a fact")
        return condition

    def _known(self, what: str, names: Iterable[str], known: Collection[str]) -> bool:
        unknown = [name for name in names if name not in known]
        for name in unknown:
            self._fault(f"unknown {what} `{name}`; {suggest(name, known)}")
        return not unknown

    def _fault(self, text: str) -> None:
        self._faults.add(INVARIANTS_FILE, self._line, 1, text)
