"""The fault that ends a command: a line of text, or with `--json` a line of JSON.

Needs no package, as the fault may be that one is missing.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping


def is_json_asked() -> bool:
    """Whether the command has the option `--json`, also one whose other arguments cannot be parsed."""
    return "--json" in sys.argv


def print_fault(code: str, message: str, details: Mapping[str, object]) -> None:
    """Print a fault to standard error. `code` is the name of a gRPC status."""
    if is_json_asked():
        fault = json.dumps({"code": code, "message": message, "details": details}, ensure_ascii=False)
        print(fault, file=sys.stderr)
    else:
        print(f"error: {message}", file=sys.stderr)


def require_written() -> None:
    """Raise `OSError` unless all that was printed could be written, and drop what could not.

    The interpreter would try again at its end, and report it in words and with an exit code of its own.
    """
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        problem = f"cannot write to standard output: {error.strerror}; what the command changed stays so"
        raise OSError(problem) from error
