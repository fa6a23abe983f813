"""Splits the lines of a policy file into fields with their positions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

_UNREADABLE = re.compile(r"[\[\]()\"']")


class Field(msgspec.Struct, frozen=True):
    """The text between two commas, without surrounding spaces, and its column, from 1."""

    text: str
    column: int


class Row(msgspec.Struct, frozen=True):
    """A line that is neither empty nor a comment. `fields[0]` is its kind: p, g, role or type."""

    file: str
    line: int
    fields: tuple[Field, ...]

    @property
    def texts(self) -> tuple[str, ...]:
        """The fields after the kind."""
        return tuple(field.text for field in self.fields[1:])


class Faults:
    """Collects the faults of a policy, so that all of them are reported at once."""

    def __init__(self) -> None:
        self._faults: list[tuple[str, int, int, str]] = []

    def add(self, file: str, line: int, column: int, text: str) -> None:
        """Record a fault."""
        self._faults.append((file, line, column, text))

    def at(self, row: Row, index: int, text: str) -> None:
        """Record a fault of the field at `index` of a row; 0 is the kind."""
        self.add(row.file, row.line, row.fields[min(index, len(row.fields) - 1)].column, text)

    def lines(self) -> tuple[str, ...]:
        """`file:line:column: text`, in the order of the file."""
        return tuple(f"{file}:{line}:{column}: {text}" for file, line, column, text in sorted(self._faults))

    def __bool__(self) -> bool:
        return bool(self._faults)


def read_text(path: Path, faults: Faults) -> str | None:
    """The text of a file. None, and a recorded fault, if it is missing or not UTF-8."""
    try:
        data = path.read_bytes()
    except OSError:
        faults.add(path.name, 1, 1, f"cannot read `{path}`; check the policy folder")
        return None
    if data.startswith(b"\xef\xbb\xbf"):
        faults.add(path.name, 1, 1, "starts with a byte order mark; save it as UTF-8 without one")
        return None
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        faults.add(path.name, line, column, "is not UTF-8; save it as UTF-8")
        return None


def read_rows(file: str, text: str, faults: Faults) -> Iterator[Row]:
    """The rows of a policy file.

    Brackets and quotes are faults: Casbin's reader takes commas inside brackets for text, crashes on an
    unmatched closing bracket, and takes a quote for part of a name.
    """
    for number, line in enumerate(text.split("\n"), 1):
        content = line.strip()
        if not content or content.startswith("#"):
            continue
        bad = _UNREADABLE.search(line)
        if bad:
            faults.add(file, number, bad.start() + 1, f"has a `{bad.group()}`; no field may contain it")
            continue
        yield Row(file, number, tuple(_split(line)))


def _split(line: str) -> Iterator[Field]:
    start = 0
    for part in line.split(","):
        lead = len(part) - len(part.lstrip())
        yield Field(part.strip(), start + (lead if part.strip() else 0) + 1)
        start += len(part) + 1
