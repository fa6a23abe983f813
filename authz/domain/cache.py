"""The one kind of cache in memory, besides `functools.lru_cache` for pure functions."""

from __future__ import annotations

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


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
