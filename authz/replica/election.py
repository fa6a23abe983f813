"""Elects one follower for each replica folder: the process that holds the lock of the folder."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from authz.replica.private import make_private_folder, private_opener

_LOCK_FILE = "lock"
_RETRY_INTERVAL_S = 0.05


@contextmanager
def elected(folder: Path, *, stopped: threading.Event, waiting: Callable[[], None]) -> Iterator[bool]:
    """Wait for the lock of a folder and hold it inside the block, which gets False if `stopped` is set first.

    Calls `waiting` again and again while another follower holds the lock. The operating system releases the
    lock when the process ends, however that ends. Creates the folder.
    """
    make_private_folder(folder)
    with open(folder / _LOCK_FILE, "a", encoding="utf-8", opener=private_opener) as file:
        while not stopped.is_set():
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                stopped.wait(_RETRY_INTERVAL_S)
            else:
                yield True
                return
        yield False
