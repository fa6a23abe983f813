"""The fault that ends a command: a line of text, or with `--json` a line of JSON.

Needs no package, as the fault may be that one is missing.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from typing import TextIO


def is_json_asked() -> bool:
    """Whether the command has the option `--json`, also one whose other arguments cannot be parsed."""
    return "--json" in sys.argv


def print_fault(code: str, message: str, details: Mapping[str, object]) -> None:
    """Print a fault to standard error, if that can be written. `code` is the name of a gRPC status."""
    text = f"error: {message}"
    if is_json_asked():
        text = json.dumps({"code": code, "message": message, "details": details}, ensure_ascii=False)
    try:
        print(text, file=sys.stderr)
    except OSError:  # the exit code still tells
        drop(sys.stderr)


def require_written() -> None:
    """Raise `OSError` unless all that was printed could be written, and drop what could not. It is a
    `BrokenPipeError` if nobody reads it any more."""
    try:
        sys.stdout.flush()
    except OSError as error:
        drop(sys.stdout)
        kind = BrokenPipeError if isinstance(error, BrokenPipeError) else OSError
        raise kind(
            f"cannot write to standard output: {error.strerror}; what the command changed stays so"
        ) from error


def open_missing_streams() -> None:
    """Open /dev/null for each standard stream that was closed before the program started, as by `>&-`.

    Otherwise a socket or a database file gets the number of the stream, and output is written to that. A
    command that prints to a closed standard output fails.
    """
    for number, name, flags in ((0, "", os.O_RDONLY), (1, "stdout", os.O_RDONLY), (2, "stderr", os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, flags), True)
            if name:
                setattr(sys, name, open(number, "w", closefd=False))  # noqa: SIM115  for the program


def drop(stream: TextIO) -> None:
    """Drop what a stream cannot write. The interpreter would try again at its end, and report it in words and
    with an exit code of its own."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
