"""Prints the fault that ends a command: a line of text, or with `--json` a line of JSON.

Needs no package, as what it prints may be that one is missing.
"""

from __future__ import annotations

import json
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
