"""Brings the file of a replica into memory ahead of the questions, in pages as large as the system has."""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_MADV_POPULATE_READ = 22  # Linux 5.14; not named in the `mmap` of Python 3.11
_STEP_BYTES = 1 << 21
"""A large page. The interpreter is held while a step is read, milliseconds, and let go as long after it."""
_MOST_OF_MEMORY = 0.5


def evict(file: Path) -> None:
    """Let the system forget what it keeps of a file that is stored and that nobody maps: what was written
    page by page is kept page by page, and only what is read is kept in large ones."""
    with suppress(FileNotFoundError), file.open("rb") as opened:
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_in(file: Path, *, stopped: Callable[[], bool]) -> None:
    """Read a file into the page cache, from where every process maps it, until `stopped` says so.

    A look-up in a large replica mostly waits for memory, and for where in memory a page is: large pages
    spare the second. One at random from the disk costs more than a whole check. What takes more than half
    of this machine's memory is left to be read as it is asked for, as where the system cannot do this.
    """
    with suppress(OSError), file.open("rb") as opened:
        size_bytes = os.fstat(opened.fileno()).st_size
        if not size_bytes or not fits_in_memory(size_bytes):
            return
        with mmap.mmap(opened.fileno(), size_bytes, prot=mmap.PROT_READ) as mapped:
            mapped.madvise(mmap.MADV_HUGEPAGE)
            for start in range(0, size_bytes, _STEP_BYTES):
                if stopped():
                    return
                begun_s = time.monotonic()
                mapped.madvise(_MADV_POPULATE_READ, start, min(_STEP_BYTES, size_bytes - start))
                # A disk fills pages behind the back of a virtual machine, which pays when it first looks.
                mapped[start : start + _STEP_BYTES : mmap.PAGESIZE]
                # Where one process does all, it has checks to answer.
                time.sleep(time.monotonic() - begun_s)


def fits_in_memory(size_bytes: int) -> bool:
    """Whether this much may be kept in memory: half of this machine's at most, whatever else needs some."""
    return size_bytes <= _MOST_OF_MEMORY * _memory_bytes()


def _memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
