"""TOML that somebody else wrote: every text that cannot be read is a `ValueError`."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from typing import Any

_MAX_DEPTH = 32


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of a text. Raises `ValueError` for one that is no TOML, or that is nested too deeply for
    recursion: `tomllib.loads` raises `RecursionError` for some of them, and reads others (`a.a.a.a = 1`)."""
    too_deep = f"its values are nested more than {_MAX_DEPTH} deep"
    try:
        tables = tomllib.loads(text)
    except RecursionError:
        raise ValueError(too_deep) from None
    level: list[object] = [tables]
    for _ in range(_MAX_DEPTH + 1):
        level = [value for each in level for value in _values(each)]
    if level:
        raise ValueError(too_deep)
    return tables


def _values(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
