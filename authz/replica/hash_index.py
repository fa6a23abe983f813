"""A hash index beside the file of a replica: finds a record in one page of it.

LMDB finds one in four pages and some twenty steps, each of which main memory takes its time for once a
replica is larger than the caches of a processor. The index is made of one state of the replica, whole, and
never follows it. Of all that comes after it learns one thing, before that is committed: in which slots
something has changed. There, LMDB is asked. So what is found is always what LMDB would have found, in every
state from the one on in which the replica names this index as its own.

A page has slots, then records. The hash of a key says which page it is in and which slot is its own; the
record is in that one or in the next that was free. A slot is a word: whether to ask LMDB instead, where in
the page the record begins, and how long it is. A record is the key and the value: no key is the beginning
of another.
"""

from __future__ import annotations

import errno
import math
import mmap
import os
import shutil
import struct
from array import array
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeAlias
from zlib import crc32

import lmdb
import msgspec

from authz.replica.environment import Environment, UnusableError
from authz.replica.pages import evict, fits_in_memory, read_in

MEMBERS, RESOURCES = 0, 1
"""The tables: what a check looks up by key, and what there are as many of as of members."""

_MAGIC = b"authzix1"
_HEADER = struct.Struct("<8s7Q")
"""Magic, size of the file, and of each table its first page, how many there are, and its slots a page."""
_HASH_BITS = 32
_WORD_BITS, _PAGE_BITS = 2, 12
_PAGE_WORDS_BITS = _PAGE_BITS - _WORD_BITS
_PAGE_BYTES = 1 << _PAGE_BITS
_LENGTH = _PAGE_BYTES - 1
_ELSEWHERE = 1 << 31
_FILLED = 0.75
"""How full a page is on average: of some that get more than their share, a few records are left to LMDB."""
_LEAST_SLOTS, _MOST_SLOTS = 16, 512
_SLOTS_A_RECORD = 2
_LEFT_FREE = 2

Find: TypeAlias = Callable[[bytes], Any]
"""From a key to its value, None for none."""
Pairs: TypeAlias = Iterable[tuple[Any, Any]]
"""Keys and values, as LMDB gives them."""


class _Table(msgspec.Struct, frozen=True):
    """Where the records of one table are: its slots are a power of two."""

    first_page: int
    pages: int
    slots: int

    def place_of(self, key: bytes) -> int:
        """Which word of the file is the slot of a key."""
        hashed = crc32(key)
        page = self.first_page + (hashed * self.pages >> _HASH_BITS)
        return (page << _PAGE_WORDS_BITS) + (hashed & self.slots - 1)

    def is_within(self, size_bytes: int) -> bool:
        """Whether a file of this size can have it."""
        end = self.first_page + self.pages
        sound = self.slots.bit_count() == 1 and self.slots <= _MOST_SLOTS
        return sound and self.first_page >= 1 <= self.pages and end * _PAGE_BYTES <= size_bytes


class HashIndex:
    """An index to find with. Raises `UnusableError` for a file that is gone, cut off or of another kind."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._map, self._tables = _opened(file, writes=False)
        self._words = memoryview(self._map).cast("I")

    def finder(self, table: int, ask: Find) -> Find:
        """Find in a table, and `ask` where that has changed."""
        mapped, words = self._map, self._words
        first_page, pages, slots = msgspec.structs.astuple(self._tables[table])
        mask, others = slots - 1, -slots
        steps = range(slots)  # a damaged page has no end

        def find(key: bytes) -> Any:
            hashed = crc32(key)
            place = (first_page + (hashed * pages >> _HASH_BITS) << _PAGE_WORDS_BITS) + (hashed & mask)
            for _ in steps:
                word = words[place]
                if word >= _ELSEWHERE:
                    return ask(key)
                if not word:
                    break
                start = (place >> _PAGE_WORDS_BITS << _PAGE_BITS) + (word >> _PAGE_BITS)
                record = mapped[start : start + (word & _LENGTH)]
                value = record.removeprefix(key)
                if value != record:
                    return value
                place = place & others | place + 1 & mask
            return None

        return find

    def is_deleted(self) -> bool:
        """Whether nobody but who has it open needs its room."""
        return not self._file.exists()

    def bytes_of(self, table: int) -> int:
        """What a table takes."""
        return self._tables[table].pages * _PAGE_BYTES


class Marks:
    """What says of an index in which slots LMDB is to be asked. Raises as `HashIndex`."""

    def __init__(self, file: Path, number: int) -> None:
        self.file = file
        self.number = number
        self.told = 0
        self.worn = 0
        """How often it was told of a change, and how many slots were marked for that."""
        self._map, self._tables = _opened(file, writes=True)
        self._words = memoryview(self._map).cast("I")

    def mark(self, table: int, key: bytes) -> None:
        """From now on LMDB is asked for this key; to be called before its change is committed."""
        self.told += 1
        place = self._tables[table].place_of(key)
        if self._words[place] < _ELSEWHERE:
            self._words[place] |= _ELSEWHERE
            self.worn += 1

    def mark_all(self, changed: Iterable[tuple[int, bytes]]) -> None:
        """Of several, by table and key."""
        for table, key in changed:
            self.mark(table, key)

    def discard(self) -> None:
        """Delete the index. Whoever still finds with it keeps what it has open."""
        self._words.release()
        self._map.close()
        self.file.unlink(missing_ok=True)


def index_file(folder: Path, number: int) -> Path:
    """Where the index of a number is kept, in the folder of its replica."""
    return folder / f"index-{number}"


def is_index_file(name: str) -> bool:
    """Whether this is what an index is kept in, or one that was never finished."""
    return name.startswith("index-")


def _opened(file: Path, *, writes: bool) -> tuple[mmap.mmap, list[_Table]]:
    access = mmap.PROT_READ | (mmap.PROT_WRITE if writes else 0)
    try:
        with file.open("r+b" if writes else "rb") as opened:
            mapped = mmap.mmap(opened.fileno(), 0, prot=access)
    except (OSError, ValueError) as error:  # the latter for an empty file
        raise UnusableError(f"cannot open {file}: {error}") from error
    header = mapped[: _HEADER.size]
    if len(header) == _HEADER.size:
        magic, size_bytes, *numbers = _HEADER.unpack(header)
        tables = [_Table(*numbers[:3]), _Table(*numbers[3:])]
        whole = magic == _MAGIC and size_bytes == len(mapped)
        if whole and all(table.is_within(size_bytes) for table in tables):
            return mapped, tables
    mapped.close()
    raise UnusableError(f"{file} is no whole index")


def build_index(
    environment: Environment,
    transaction: lmdb.Transaction,
    file: Path,
    *,
    paced: Callable[[Pairs], Pairs],
    stopped: Callable[[], bool] = lambda: False,
) -> bool:
    """Write the index of the state that a transaction sees; return whether there is memory for it.

    `paced` is what reading goes through, and may raise to end it: then no file is left. Raises OSError for
    want of room on the disk.
    """
    tables = _plan(environment, transaction, paced)
    end_bytes = (tables[-1].first_page + tables[-1].pages) * _PAGE_BYTES
    if not fits_in_memory(environment.size_bytes() + end_bytes):
        return False
    if shutil.disk_usage(file.parent).free < _LEFT_FREE * end_bytes:
        raise OSError(errno.ENOSPC, "what an index takes must be there twice: others need room, too")
    made = file.with_name(file.name + ".new")
    try:
        with made.open("x+b") as opened:
            # Room that is missing is to be missed here, and not where the map is written.
            os.posix_fallocate(opened.fileno(), 0, end_bytes)
            with mmap.mmap(opened.fileno(), end_bytes) as mapped:
                for table, database in zip(tables, _databases(environment), strict=True):
                    with transaction.cursor(database) as cursor:
                        _fill(mapped, table, paced(cursor))
                numbers = [each for table in tables for each in msgspec.structs.astuple(table)]
                _HEADER.pack_into(mapped, 0, _MAGIC, end_bytes, *numbers)
            os.fsync(opened.fileno())
        evict(made)
        read_in(made, stopped=stopped)
        made.rename(file)
    finally:
        made.unlink(missing_ok=True)
    return True


def _databases(environment: Environment) -> tuple[lmdb._Database, lmdb._Database]:
    return environment.members, environment.resources


def _plan(
    environment: Environment, transaction: lmdb.Transaction, paced: Callable[[Pairs], Pairs]
) -> list[_Table]:
    tables, free_page = [], 1  # the first is the header's
    for database in _databases(environment):
        with transaction.cursor(database) as cursor:
            size_bytes = sum(len(key) + len(value) for key, value in paced(cursor))
        tables.append(_planned(free_page, transaction.stat(database)["entries"], size_bytes))
        free_page += tables[-1].pages
    return tables


def _planned(first_page: int, records: int, size_bytes: int) -> _Table:
    """A table for so many records that take so much together."""
    mean_bytes = max(1.0, size_bytes / max(1, records))
    slots = _LEAST_SLOTS
    while slots < _MOST_SLOTS and slots < _SLOTS_A_RECORD * _records_a_page(slots, mean_bytes):
        slots *= 2
    return _Table(first_page, max(1, math.ceil(records / _records_a_page(slots, mean_bytes))), slots)


def _records_a_page(slots: int, mean_bytes: float) -> float:
    return min(slots - 1, (_PAGE_BYTES - (slots << _WORD_BITS)) * _FILLED / mean_bytes)


def _fill(mapped: mmap.mmap, table: _Table, pairs: Pairs) -> None:
    """Write the records of a table, and leave to LMDB what does not fit into its page."""
    mask = table.slots - 1
    ends = array("H", [table.slots << _WORD_BITS]) * table.pages
    left = array("H", [mask]) * table.pages  # one slot stays free, where a search ends
    with memoryview(mapped) as raw, raw.cast("I") as words:
        for key, value in pairs:
            place = table.place_of(key)
            page = (place >> _PAGE_WORDS_BITS) - table.first_page
            record = key + value
            start = ends[page]
            end = start + len(record)
            if end > _PAGE_BYTES or not left[page]:
                if not words[place] and left[page]:
                    left[page] -= 1
                words[place] |= _ELSEWHERE
                continue
            while words[place]:
                place = place & ~mask | place + 1 & mask
            words[place] = start << _PAGE_BITS | len(record)
            head = table.first_page + page << _PAGE_BITS
            mapped[head + start : head + end] = record
            ends[page] = end
            left[page] -= 1
