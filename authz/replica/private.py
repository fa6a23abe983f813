"""Folders and files of the replica, which only their owner may read."""

from __future__ import annotations

import os
from pathlib import Path

FILE_MODE = 0o600
_FOLDER_MODE = 0o700


def make_private_folder(folder: Path) -> None:
    """Make a folder, and those above it, for their owner alone. Leaves a folder that is there as it is."""
    if not folder.is_dir():
        make_private_folder(folder.parent)
        folder.mkdir(mode=_FOLDER_MODE, exist_ok=True)


def private_opener(path: str, flags: int) -> int:
    """The `opener` of `open` for a file that is made for its owner alone."""
    return os.open(path, flags, FILE_MODE)
