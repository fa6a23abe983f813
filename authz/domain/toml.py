"""TOML that somebody else wrote: every text that cannot be read is a `ValueError`."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from typing import Any

_MAX_DEPTH = 32
_PART = r"""(?:[A-Za-z0-9_-]++|"(?:[^"\\\n]++|\\.)*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+"""
_TOO_DEEP_KEY = re.compile(rf"(?<![A-Za-z0-9_\\-])(?:{_PART}){{{_MAX_DEPTH}}}")
"""A key such as `a.b.c`, of too many parts. A search takes time linear in the text: each part is possessive,
and none begins inside another, as at the quote of `\\"`."""
_MAX_BITS = 63
"""Of a number, besides its sign. Python reads larger ones, and then raises when it writes them."""


def parse_toml(text: str) -> dict[str, Any]:
    """The tables of a text. Raises `ValueError` for one that is no TOML, or that is nested too deeply for
    recursion: `tomllib.loads` raises `RecursionError` for some of them, and reads others (`a.a.a.a = 1`), of
    which it takes the square of the length of a key in time and in memory."""
    too_deep = f"its values are nested more than {_MAX_DEPTH} deep"
    if _TOO_DEEP_KEY.search(text):
        raise ValueError(too_deep)
    try:
        tables = tomllib.loads(text)
    except RecursionError:
        raise ValueError(too_deep) from None
    level: list[object] = [tables]
    for _ in range(_MAX_DEPTH + 1):
        level = [value for each in level for value in _values(each)]
        if any(isinstance(value, int) and value.bit_length() > _MAX_BITS for value in level):
            raise ValueError("a number has more than 64 bits")
    if level:
        raise ValueError(too_deep)
    return tables


def _values(value: object) -> Iterable[object]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()
