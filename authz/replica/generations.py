"""The generations of a replica folder: each build makes a new subfolder, and one of them is served."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from authz.domain.ports import Directory
from authz.replica.build import build_replica
from authz.replica.environment import Environment, acquire_environment, release_environment
from authz.replica.private import FILE_MODE, make_private_folder

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
        copied = open_generation(folder, int(target.name), max_bytes=max_bytes)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    with copied.lmdb.begin(write=True) as transaction:
        versions = copied.versions(transaction)
        copied.set_versions(transaction, msgspec.structs.replace(versions, cleared=versions.revision))
    return copied


def delete_generations(folder: Path, *, keep: str = "") -> None:
    """Delete every generation except `keep`, and nothing else that is in the folder.

    A process that still reads one of them keeps its open files.
    """
    for path in folder.iterdir():
        if path.name == keep:
            continue
        if path.is_dir() and path.name.isdigit() and {each.name for each in path.iterdir()} <= _FILES:
            shutil.rmtree(path, ignore_errors=True)
