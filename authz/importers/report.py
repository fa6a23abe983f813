"""What importers report: the mutations of a file, its faults, and notes, each with file and line."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from authz.domain.errors import escaped
from authz.domain.mutations import Mutation

_MAX_QUOTED = 80


class Sourced(msgspec.Struct, frozen=True):
    """A mutation, with the file and line that it was read from."""

    mutation: Mutation
    file: str
    line: int


class RowFault(msgspec.Struct, frozen=True):
    """A fault of one row, or a note about it. Line 0 is the file as a whole."""

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{place(self.file, self.line)}: {self.message}"


class ParsedSource(msgspec.Struct, frozen=True):
    """What was read: mutations in an order in which they can be applied, faults, and notes."""

    mutations: list[Sourced]
    faults: list[RowFault]
    notes: list[RowFault]


def in_order(faults: Iterable[RowFault]) -> list[RowFault]:
    """Faults by file and line. They are found in several passes, the last of them on the server."""
    return sorted(faults, key=lambda fault: (fault.file, fault.line))


def place(file: str, line: int) -> str:
    """`file:line`, or the file alone for line 0."""
    return f"{file}:{line}" if line else file


def printable(text: str) -> str:
    """The text with `\N{REPLACEMENT CHARACTER}` for each character that cannot be printed."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def quoted(text: str) -> str:
    """The text in backticks, cut to 80 characters, so that blanks at its ends and control characters show."""
    cut = text if len(text) <= _MAX_QUOTED else text[:_MAX_QUOTED] + "…"
    body = cut.strip(" ")
    start = len(cut) - len(cut.lstrip(" "))
    return f"`{'␠' * start}{escaped(body)}{'␠' * (len(cut) - len(body) - start)}`"
