"""The generations of a replica folder: each build makes a new subfolder, and one of them is served."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from authz.domain.ports import Directory
from authz.replica.build import build_replica
from authz.replica.environment import Environment, acquire_environment, release_environment

_FILES = {"data.mdb", "lock.mdb"}
"""What a generation consists of."""


def open_generation(folder: Path, generation: int, *, max_bytes: int) -> Environment:
    """Open one generation. Raises `UnusableError` unless it is complete and of this format."""
    environment = acquire_environment(folder / str(generation), max_bytes=max_bytes)
    try:
        environment.require_usable()
    except BaseException:
        release_environment(environment)
        raise
    return environment


def build_generation(
    folder: Path, directory: Directory, *, max_bytes: int, stopped: Callable[[], bool]
) -> int:
    """Build a new generation from the database, in place of all others; return its number.

    Raises `UnavailableError` soon after `stopped` returns true.
    """
    _delete_generations(folder)
    generation = time.time_ns()
    with directory.dump() as dump:
        build_replica(folder / str(generation), dump, max_bytes=max_bytes, stopped=stopped)
    return generation


def _delete_generations(folder: Path) -> None:
    """Delete every generation, and nothing else that somebody keeps in the folder.

    A process that still reads one of them keeps its open files.
    """
    for path in folder.iterdir():
        if path.is_dir() and path.name.isdigit() and {each.name for each in path.iterdir()} <= _FILES:
            shutil.rmtree(path, ignore_errors=True)
