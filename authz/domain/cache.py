"""The one kind of cache in memory, besides `functools.lru_cache` for pure functions."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")
T = TypeVar("T")

_MAX_TEXTS = 4096
_MAX_LENGTH = 200
"""Characters: more than a rule or a condition that somebody writes has."""


class BoundedCache(dict[K, V]):
    """A dictionary that is emptied before it would hold more than `max_items`.

    Reading it takes as long as reading a `dict`. What is in use comes back at its next miss.
    """

    __slots__ = ("_max_items",)

    def __init__(self, max_items: int) -> None:
        super().__init__()
        self._max_items = max_items

    def __setitem__(self, key: K, value: V) -> None:
        if len(self) >= self._max_items:
            self.clear()
        super().__setitem__(key, value)


def cached_if_short(function: Callable[..., T]) -> Callable[..., T]:
    """Cache the results of a pure function for short texts only. Its other arguments are flags.

    A client could fill the memory with long texts, and a result can be many times as large as its text.
    """
    cached = lru_cache(_MAX_TEXTS)(function)

    @wraps(function)
    def call(text: str, *flags: bool) -> T:
        return cached(text, *flags) if len(text) <= _MAX_LENGTH else function(text, *flags)

    return call
