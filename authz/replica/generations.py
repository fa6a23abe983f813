"""The generations of a replica folder: each build makes a new subfolder, and one of them is served.

A build reads a dump of the source of truth, in the order of the keys, and fills whole pages.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import lmdb

from authz.domain.ports import ChangeSource, Dump
from authz.replica.codec import Pair
from authz.replica.environment import (
    Environment,
    ReplicaHeader,
    UnusableError,
    acquire_environment,
    not_ready,
    released_on_error,
)
from authz.replica.folder import FILE_MODE, make_private_folder
from authz.replica.kinds import CODECS, TOMBSTONES, TOMBSTONES_BY_AGE
from authz.replica.layout import number_key, ref_key

_PAGE = 1_000
"""Rows between two looks at whether to stop."""
_CHUNK = 100_000
"""Rows a transaction: what LMDB keeps in memory until it commits."""
_CHUNK_BYTES = 1 << 20
_MAX_SHARE_OF_MEMORY = 0.5
_FILES = {"data.mdb", "lock.mdb"}
"""What a generation consists of."""


def open_generation(folder: Path, generation: int, *, max_bytes: int) -> Environment:
    """Open one generation. Raises `UnusableError` unless it is complete and of this format."""
    environment = acquire_environment(folder / str(generation), max_bytes=max_bytes)
    with released_on_error(environment):
        environment.require_usable()
    return environment


def build_generation(
    folder: Path, directory: ChangeSource, *, max_bytes: int, stopped: Callable[[], bool]
) -> int:
    """Build a new generation from the database, in place of all others; return its number.

    Raises `UnavailableError` soon after `stopped` returns true.
    """
    delete_generations(folder)
    generation = time.time_ns()
    with directory.dump() as dump:
        build_replica(folder / str(generation), dump, max_bytes=max_bytes, stopped=stopped)
    return generation


def copy_generation(folder: Path, environment: Environment, *, max_bytes: int) -> Environment:
    """A new generation with what one holds, and without its free pages: what was deleted is nowhere in it.

    Others may write to the old one meanwhile; the copy holds what it held at one moment.
    """
    target = folder / str(time.time_ns())
    make_private_folder(target)
    try:
        environment.lmdb.copy(str(target), compact=True)
        for file in target.iterdir():
            file.chmod(FILE_MODE)
        return open_generation(folder, int(target.name), max_bytes=max_bytes)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


def delete_generations(folder: Path, *, keep: str = "") -> None:
    """Delete every generation except `keep`, and nothing else that is in the folder.

    A process that still reads one of them keeps its open files. Raises `OSError` for one that cannot be
    deleted: it may hold records of somebody who was erased.
    """
    for path in folder.iterdir():
        if path.name == keep:
            continue
        if path.is_dir() and path.name.isdigit() and {each.name for each in path.iterdir()} <= _FILES:
            shutil.rmtree(path)


def build_replica(
    folder: Path, dump: Dump, *, max_bytes: int, stopped: Callable[[], bool] = lambda: False
) -> None:
    """Fill an empty folder with what a dump holds. Until the end, the file says that it is unfinished.

    Raises `UnavailableError` soon after `stopped` says so.
    """
    environment = Environment(folder, max_bytes=max_bytes)
    with closing(environment.lmdb):
        for name, pairs in _parts(dump, environment):
            _fill(environment, environment.databases[name], _until(stopped, pairs))
        with environment.lmdb.begin(write=True) as transaction:
            state = dump.state
            revision = state.revision
            last = dict.fromkeys(("scopes", "policy", "erased", "cleared"), revision)
            header = ReplicaHeader(revision, state.committed_at, state.nonce, **last)
            environment.set_header(transaction, header)
            environment.set_identity(transaction, state.database_id, dump.token_key)
        environment.lmdb.sync(True)


def _until(stopped: Callable[[], bool], pairs: Iterable[Pair]) -> Iterator[Pair]:
    left = iter(pairs)
    while page := list(islice(left, _PAGE)):
        if stopped():
            raise not_ready("the server was stopped while it built its replica; start it again")
        yield from page


def _parts(dump: Dump, environment: Environment) -> Iterator[tuple[str, Iterable[Pair]]]:
    """The content of each database. When one is asked for, those before are written."""
    yield TOMBSTONES, ((ref_key(ref), number_key(at)) for ref, at in dump.tombstones())
    yield TOMBSTONES_BY_AGE, ((number_key(at) + ref_key(ref), b"") for ref, at in dump.tombstones())
    for codec in CODECS.values():
        yield codec.database, codec.pairs(dump)
        for index in codec.indexes:
            with environment.lmdb.begin(environment.databases[codec.database]) as written:
                record_of: Any = written.get
                yield index.database, index.pairs(dump.values(codec.kind, index.fields), record_of)


def _fill(environment: Environment, database: lmdb._Database, pairs: Iterable[Pair]) -> None:
    """Append what comes in the order of its keys; insert the rest."""
    left = iter(pairs)
    last = b""
    late: list[Pair] = []

    def in_order(chunk: Iterable[Pair]) -> Iterator[Pair]:
        nonlocal last
        for pair in chunk:
            # Packed ids do not sort where their text does.
            if pair[0] > last:
                last = pair[0]
                yield pair
            else:
                late.append(pair)

    more = True
    while more:
        with environment.lmdb.begin(write=True) as transaction, transaction.cursor(database) as cursor:
            consumed, added = cursor.putmulti(in_order(islice(left, _CHUNK)), append=True)
            if added != consumed:  # LMDB skips what it cannot append, and raises no error
                raise UnusableError(f"{consumed - added} records could not be appended")
            cursor.putmulti(late)
        more = consumed + len(late) == _CHUNK
        late.clear()


def warm_up(file: Path, stopped: Callable[[], bool]) -> None:
    """Read `file` into the page cache, sequentially, until its end or until `stopped` returns true.

    Does nothing for a file larger than half of this machine's memory, which would evict itself, or for one
    that cannot be read.
    """
    with suppress(OSError), file.open("rb", buffering=0) as opened:
        if os.fstat(opened.fileno()).st_size > _MAX_SHARE_OF_MEMORY * _memory_bytes():
            return
        buffer = bytearray(_CHUNK_BYTES)
        while opened.readinto(buffer) and not stopped():
            pass


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
