"""Reads the replica into the page cache, so that the first checks after a reboot take no page faults."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_CHUNK_BYTES = 1 << 20
_MAX_SHARE_OF_MEMORY = 0.5


def warm_up(file: Path, stopped: Callable[[], bool]) -> None:
    """Read `file` sequentially, until its end or until `stopped` returns true.

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
