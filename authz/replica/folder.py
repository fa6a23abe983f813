"""The folder of a replica: only its owner may read it, and one follower at a time writes to it."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

FILE_MODE = 0o600
_FOLDER_MODE = 0o700
_LOCK_FILE = "lock"
_RETRY_INTERVAL_S = 0.05


def make_private_folder(folder: Path) -> None:
    """Make a folder, and those above it, for their owner alone. Leaves a folder that is there as it is."""
    if not folder.is_dir():
        make_private_folder(folder.parent)
        folder.mkdir(mode=_FOLDER_MODE, exist_ok=True)


def private_opener(path: str, flags: int) -> int:
    """The `opener` of `open` for a file that is made for its owner alone."""
    return os.open(path, flags, FILE_MODE)


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
