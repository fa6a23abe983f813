"""Scans of the keys that begin with a prefix, in their order. They yield what follows the prefix."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any, TypeVar

import lmdb

T = TypeVar("T", bytes, tuple[bytes, bytes])


def scan_prefix(
    transaction: lmdb.Transaction, database: lmdb._Database, prefix: bytes, after: bytes = b""
) -> Iterator[bytes]:
    """The suffixes of the keys with a prefix, ascending, those greater than `after`."""
    return (suffix for suffix, _ in scan_records(transaction, database, prefix, after))


def scan_records(
    transaction: lmdb.Transaction, database: lmdb._Database, prefix: bytes, after: bytes = b""
) -> Iterator[tuple[bytes, bytes]]:
    """As `scan_prefix`, each with its value."""
    start, length = prefix + after, len(prefix)
    with transaction.cursor(database) as cursor:
        if not cursor.set_range(start):
            return
        records: Iterator[Any] = cursor.iternext()
        for key, value in records:
            if not key.startswith(prefix):
                return
            if key != start:
                yield key[length:], value


def scan_both(
    transaction: lmdb.Transaction,
    one: tuple[lmdb._Database, bytes],
    other: tuple[lmdb._Database, bytes],
    after: bytes,
) -> Iterator[tuple[bytes, bytes]]:
    """The suffixes that two prefixes, each in its database, have in common: ascending, greater than `after`,
    each with its value in the other database.

    Leaps over what only one of them has, so it costs no more than the shorter of the two.
    """
    (one_database, one_prefix), (other_database, other_prefix) = one, other
    with transaction.cursor(one_database) as first, transaction.cursor(other_database) as second:
        wanted = after + b"\0" if after else b""  # no key is a prefix of another
        while first.set_range(one_prefix + wanted) and (key := bytes(first.key())).startswith(one_prefix):
            suffix = key[len(one_prefix) :]
            if not second.set_range(other_prefix + suffix):
                return
            key = bytes(second.key())
            if not key.startswith(other_prefix):
                return
            wanted = key[len(other_prefix) :]
            if wanted == suffix:
                yield suffix, bytes(second.value())
                wanted = suffix + b"\0"


def merge_sorted(suffixes: Iterable[Iterable[T]]) -> Iterator[T]:
    """The union of ascending iterables, ascending, without repeats."""
    return (each for each, _ in groupby(heapq.merge(*suffixes)))
