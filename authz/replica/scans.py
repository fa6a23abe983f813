"""Ranges of the keys of a replica, one by one in their order: what the scans of a snapshot are made of."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

import lmdb


def tails(
    transaction: lmdb.Transaction, database: lmdb._Database, head: bytes, after: bytes = b""
) -> Iterator[bytes]:
    """What follows `head` in each key that begins with it, behind `after`, which need not be there."""
    start, length = head + after, len(head)
    with transaction.cursor(database) as cursor:
        if not cursor.set_range(start):
            return
        keys: Iterator[Any] = cursor.iternext(keys=True, values=False)
        for key in keys:
            if not key.startswith(head):
                return
            if key != start:
                yield key[length:]


def tails_in_both(
    transaction: lmdb.Transaction,
    one: tuple[lmdb._Database, bytes],
    other: tuple[lmdb._Database, bytes],
    after: bytes,
) -> Iterator[bytes]:
    """What follows the heads of two ranges, each a database and a head, where it is the same, behind `after`.

    Leaps over what is in one range only, so it costs no more than the shorter of the two.
    """
    (one_database, one_head), (other_database, other_head) = one, other
    with transaction.cursor(one_database) as first, transaction.cursor(other_database) as second:
        wanted = after + b"\0" if after else b""  # no key is a prefix of another
        while first.set_range(one_head + wanted) and (key := bytes(first.key())).startswith(one_head):
            tail = key[len(one_head) :]
            if not second.set_range(other_head + tail):
                return
            key = bytes(second.key())
            if not key.startswith(other_head):
                return
            wanted = key[len(other_head) :]
            if wanted == tail:
                yield tail
                wanted = tail + b"\0"


def in_any(ranges: Iterable[Iterable[bytes]]) -> Iterator[bytes]:
    """All that is in any of some ascending ranges, once, ascending."""
    return (each for each, _ in groupby(heapq.merge(*ranges)))
