"""The TOML files of a policy, table by table: what is wrong with each, at its line, and the remedy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache, lru_cache
from itertools import islice
from typing import Any, TypeVar

import msgspec

from authz.domain.toml import parse_toml
from authz.domain.vocabulary import suggest
from authz.policy.rows import BYTE_ORDER_MARK, MAX_FAULTS, Faults

T = TypeVar("T", bound=msgspec.Struct)
_PLACE = re.compile(r" \(at line (\d+), column (\d+)\)$")
_NAME = r"""(?:[A-Za-z0-9_-]+|'[^']*'|"(?:[^"\\]|\\.)*")"""
_BEGINS = re.compile(
    rf"[ \t]*(?:\[\s*(?P<parent>{_NAME})\s*\.\s*(?P<name>{_NAME})\s*\]|(?P<key>{_NAME})[ \t]*=)"
)
_MAX_CACHED = 4
"""Texts of files, of which one is read after the other."""


def read_tables(file: str, text: str, faults: Faults) -> dict[str, Any]:
    """The tables of a file; none, with a fault at its place, for a text that is no TOML."""
    if text.startswith(BYTE_ORDER_MARK):
        faults.add(file, 1, 1, "starts with a byte order mark; save it as UTF-8 without one")
        return {}
    try:
        return parse_toml(text)
    except ValueError as error:
        problem = str(error)
        place = _PLACE.search(problem)
        line, column = (int(place[1]), int(place[2])) if place else (1, 1)
        problem = problem[0].lower() + _PLACE.sub("", problem)[1:]
        faults.add(file, line, column, f"is no TOML: {problem}; see docs/policies.md")
        return {}


def convert_table(table: object, kind: type[T]) -> tuple[T | None, list[str]]:
    """A table without its unknown keys as a struct, or else None, and all that is wrong with the table, but
    of its unknown keys the first `MAX_FAULTS`."""
    if not isinstance(table, dict):
        return None, ["is not a table; write `key = value` lines below a header, or `{ key = value, … }`"]
    fields = _fields_of(kind)
    unknown = islice((key for key in table if key not in fields), MAX_FAULTS)
    problems = [f"unknown key `{key}`; {suggest(key, fields)}" for key in unknown]
    missing = [f"needs `{name}`" for name, field in fields.items() if field.required and name not in table]
    if missing:
        return None, [*problems, *missing]
    try:
        return msgspec.convert({key: table[key] for key in table if key in fields}, kind), problems
    except msgspec.ValidationError as error:
        problem, _, place = str(error).partition(" - at `$.")
        return None, [*problems, f"`{place.rstrip('`')}`: {problem.replace(' | null', '').lower()}"]


@cache
def _fields_of(kind: type[msgspec.Struct]) -> Mapping[str, msgspec.structs.FieldInfo]:
    return {field.name: field for field in msgspec.structs.fields(kind)}


def line_of(text: str, parent: str, name: str) -> int:
    """Where a table begins: at its header, or at its key in the table of its parent. 1 if it is not found."""
    begins = _beginnings(text)
    spelled = (name, f"'{name}'", msgspec.json.encode(name).decode())
    found = [begins.get((head, each)) for head in (parent, "") for each in spelled]
    return min((line for line in found if line is not None), default=1)


@lru_cache(_MAX_CACHED)
def _beginnings(text: str) -> Mapping[tuple[str, str], int]:
    """The first line of each header `[parent.name]`, and of each key, whose parent is empty here; as they are
    spelled. In one pass: each fault looks for its line."""
    found: dict[tuple[str, str], int] = {}
    for number, line in enumerate(text.split("\n"), 1):
        begins = _BEGINS.match(line)
        if begins is not None:
            found.setdefault((begins["parent"] or "", begins["name"] or begins["key"]), number)
    return found
