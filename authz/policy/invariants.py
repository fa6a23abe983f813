"""What must hold of every policy, as data: `invariants.toml`, resolved against the names of a policy."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TypeAlias

import msgspec

from authz.domain.errors import escaped
from authz.domain.facts import FACTS_BY_NAME
from authz.domain.ids import ScopeKind
from authz.domain.vocabulary import Vocabulary, suggest
from authz.policy.condition import Condition, condition_terms, parse_condition
from authz.policy.rows import Faults
from authz.policy.rules import unknown_fact
from authz.policy.situations import closure
from authz.policy.size import MAX_INVARIANTS
from authz.policy.toml_tables import convert_table, line_of, read_tables

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


class _Selection(msgspec.Struct, kw_only=True):
    """One table of the file. What is left out selects everything."""

    says: str
    types: list[str] | None = None
    except_types: list[str] = []
    actions: list[str] | None = None
    except_actions: list[str] = []


class _NeverTable(_Selection, kw_only=True):
    roles: list[str] | None = None
    except_roles: list[str] = []
    rank_below: int | None = None
    kind: str | None = None
    when: str = ""


_TABLES: dict[str, type[_Selection]] = {"never": _NeverTable, "gaining": _Selection}
"""The kinds of tables, in the order in which invariants are read."""


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
    tables = read_tables(INVARIANTS_FILE, text, faults)
    count = sum(len(named) for named in tables.values() if isinstance(named, dict))
    if count > MAX_INVARIANTS:
        faults.add(INVARIANTS_FILE, 1, 1, f"has more than {MAX_INVARIANTS} invariants; write fewer")
        return ()
    known: dict[str, dict[str, object]] = {}
    for kind, named in tables.items():
        if kind in _TABLES and isinstance(named, dict):
            known[kind] = named
        else:
            where = line_of(text, kind, next(iter(named), "") if isinstance(named, dict) else "")
            problem = f"`{kind}` is no kind of invariant; write `[never.NAME]` or `[gaining.NAME]`"
            faults.add(INVARIANTS_FILE, where, 1, problem)
    found = [
        _Reader(vocabulary, faults, line_of(text, kind, name)).invariant(name, table, _TABLES[kind])
        for kind in _TABLES
        for name, table in known.get(kind, {}).items()
    ]
    return tuple(each for each in found if each is not None)


class _Reader:
    """Resolves the names of one table. A fault is recorded at the line of its header."""

    def __init__(self, vocabulary: Vocabulary, faults: Faults, line: int) -> None:
        self._vocabulary, self._faults, self._line = vocabulary, faults, line

    def invariant(self, name: str, table: object, kind: type[_Selection]) -> Invariant | None:
        selection, problems = convert_table(table, kind)
        for problem in problems:
            self._fault(f"`{escaped(name)}`: {problem}")
        if selection is None:
            return None
        cells = self._cells(selection)
        if not isinstance(selection, _NeverTable):
            return Gaining(name, selection.says, cells)
        roles, when = self._roles(selection), self._condition(selection.when)
        return Never(name, selection.says, cells, roles, when)

    def _cells(self, table: _Selection) -> Cells:
        actions = {action for _, action in self._vocabulary.actions}
        known = (
            self._known("type", (*(table.types or ()), *table.except_types), self._vocabulary.types),
            self._known("action", (*(table.actions or ()), *table.except_actions), actions),
        )
        found = frozenset(
            (name, action)
            for name, action in self._vocabulary.actions
            if (table.types is None or name in table.types)
            and name not in table.except_types
            and (table.actions is None or action in table.actions)
            and action not in table.except_actions
        )
        if not found and all(known):
            self._fault("selects no action of any type; widen `types` or `actions`")
        return found

    def _roles(self, table: _NeverTable) -> frozenset[str]:
        declared = self._vocabulary.roles
        kinds = () if table.kind is None else (table.kind,)
        known = (
            self._known("role", (*(table.roles or ()), *table.except_roles), declared),
            self._known("kind of scope", kinds, list(ScopeKind)),
        )
        found = frozenset(
            role.name
            for role in declared.values()
            if (table.roles is None or role.name in table.roles)
            and role.name not in table.except_roles
            and (table.rank_below is None or role.rank < table.rank_below)
            and (table.kind is None or role.scope_kind == table.kind)
        )
        if not found and all(known):
            self._fault("selects no role; widen `roles`, `rank_below` or `kind`")
        return found

    def _condition(self, text: str) -> Condition:
        unknown = [name for name, _ in condition_terms(text) if name not in FACTS_BY_NAME]
        for name in unknown:
            self._fault(unknown_fact(name, 'for "or", write two invariants'))
        if unknown:
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
