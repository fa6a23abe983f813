"""Opens the file of an import: a file, a pipe, or standard input."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import IO

from authz.domain.errors import InvalidArgumentError, invalid
from authz.importers.report import quoted

_STANDARD_INPUT = Path("-")


def name_of(path: Path) -> str:
    """What faults and the change log call a file."""
    return "stdin" if path == _STANDARD_INPUT else path.name


def is_stream(path: Path) -> bool:
    """Whether it is standard input or a pipe, which have no name that says what they hold."""
    return path == _STANDARD_INPUT or (path.exists() and not path.is_file() and not path.is_dir())


def open_source(path: Path) -> IO[bytes]:
    """Open a file for reading at any place in it: a stream is copied to a temporary file first.

    Raises `InvalidArgumentError` for a folder, and for what is not there or cannot be read.
    """
    if path == _STANDARD_INPUT:
        return _copied(sys.stdin.buffer)
    if path.is_dir() or not path.exists():
        raise unreadable(path, "is not a file")
    try:
        opened = path.open("rb")
    except OSError as error:
        raise unreadable(path, f"cannot be read: {error.strerror}") from None
    if not is_stream(path):
        return opened
    with opened:
        return _copied(opened)


def _copied(stream: IO[bytes]) -> IO[bytes]:
    copy = tempfile.TemporaryFile()  # noqa: SIM115  the caller closes it
    shutil.copyfileobj(stream, copy)
    copy.seek(0)
    return copy


def unreadable(path: Path, problem: str) -> InvalidArgumentError:
    """The error for a path that cannot be read."""
    return invalid("path", f"{quoted(str(path))} {problem}")
