"""Splits the lines of a policy file into fields with their positions."""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterator

import msgspec

from authz.domain.cache import cached_if_short
from authz.domain.errors import PolicyError, PolicyFault
from authz.domain.vocabulary import suggest

WIDTHS = {"p": 7, "g": 3, "role": 6, "type": 3, "lock": 4}
"""The kinds of rows, and how many fields each has."""
_NAMING = {"p", "g", "lock"}
"""The kinds of rows that use names, and declare none."""
_COMMENTS = ("#", '"#')
"""How a comment begins. Spreadsheets quote those with a comma, and Casbin ignores them then, too."""
_KIND = rf"(?:{'|'.join(WIDTHS)})"
_DELIMITER = re.compile(rf'^ *"?{_KIND}"? *([,;\t])', re.MULTILINE)
_QUOTED = re.compile(rf'^ *"{_KIND}"', re.MULTILINE)
SEPARATOR_LINE = re.compile(r'\A"?sep=[,;\t]"?[,;\t ]*(\r\n?|\n)')
"""The first line of some exports, which tells a spreadsheet what separates the fields."""
BYTE_ORDER_MARK = "\ufeff"
_FORMAT = "run `authz policy format --write` on the file"
_MAX_END = 1000
"""Of the text of a fault: what is kept of its beginning and of its end."""
MAX_FAULTS = 1000
"""Of a policy, after which no more is read of it. Else one that has nothing but faults takes a minute."""
_UNREADABLE = re.compile(r"[\[\]()\"']")


class Row(msgspec.Struct, frozen=True):
    """A line that is neither empty nor a comment, with what is between its commas, without surrounding
    spaces."""

    file: str
    line: int
    content: str
    fields: tuple[str, ...]

    @property
    def kind(self) -> str:
        """p, g, role, type or lock; anything else is a fault."""
        return self.fields[0]

    @property
    def texts(self) -> tuple[str, ...]:
        """The fields after the kind."""
        return self.fields[1:]

    def column(self, index: int) -> int:
        """Where the field at `index` begins in the line, from 1; the last field if there are fewer."""
        parts = self.content.split(",")[: min(index + 1, len(self.fields))]
        start = sum(len(part) + 1 for part in parts[:-1])
        return start + len(parts[-1]) - len(parts[-1].lstrip() or parts[-1]) + 1


class Faults:
    """Collects the faults of a policy, so that all of them are reported together, up to `MAX_FAULTS`."""

    def __init__(self) -> None:
        self._faults: list[PolicyFault] = []
        self.misdeclared: set[str] = set()
        """Names of which the declaration has a fault."""

    def add(self, file: str, line: int, column: int, text: str) -> None:
        """Record a fault. Of a text that quotes a very long field, the middle is left out.

        Raises `PolicyError` as `require_none` when there are too many to go on.
        """
        if len(text) > 2 * _MAX_END:
            text = f"{text[:_MAX_END]} … {text[-_MAX_END:]}"
        if len(self._faults) == MAX_FAULTS - 1:
            text = f"{text}. This is fault {MAX_FAULTS}, and no more are listed; correct these first"
        self._faults.append(PolicyFault(file, line, column, text))
        if len(self._faults) == MAX_FAULTS:
            self.require_none()

    def at(self, row: Row, index: int, text: str) -> None:
        """Record a fault of the field at `index` of a row; 0 is the kind."""
        self.add(row.file, row.line, row.column(index), text)

    def skip_declaration(self, row: Row) -> None:
        """Of a row with a fault, which may declare a name: that the name is unknown is not told again."""
        if row.kind not in _NAMING:
            self.misdeclared.update(row.texts[:1])

    def unknown(self, row: Row, index: int, what: str, known: Collection[str]) -> None:
        """Record that the field at `index` names no role or type, unless its declaration has a fault."""
        name = row.fields[index]
        if name not in self.misdeclared:
            self.at(row, index, f"unknown {what} `{name}`; {suggest(name, known)}")

    def require_none(self) -> None:
        """Raise `PolicyError` with the faults, in the order of the file, if there are any."""
        if self._faults:
            raise PolicyError(tuple(sorted(self._faults)))

    def lines(self) -> set[int]:
        """The numbers of the lines that have a fault."""
        return {fault.line for fault in self._faults}

    def __len__(self) -> int:
        return len(self._faults)

    def __bool__(self) -> bool:
        return bool(self._faults)


def read_rows(file: str, text: str, faults: Faults) -> Iterator[Row]:
    """The rows of a policy file.

    Brackets and quotes are faults: Casbin's reader takes commas inside brackets for text, crashes on an
    unmatched closing bracket, and takes a quote for part of a name. So is a line break other than a newline:
    what an editor shows as the row after a comment would be a part of the comment. A file with other
    separators or with every field in quotes, as spreadsheets write them, has one fault and no rows.
    """
    if text.startswith(BYTE_ORDER_MARK):
        faults.add(file, 1, 1, f"starts with a byte order mark; {_FORMAT}")
        return
    separated = (found for found in _DELIMITER.finditer(text) if found[1] != ",")
    if other := next(separated, None):
        number = text.count("\n", 0, other.start()) + 1
        faults.add(file, number, 1, f"fields are not separated by commas; {_FORMAT}")
        return
    if SEPARATOR_LINE.match(text):
        faults.add(file, 1, 1, f"starts with a line that only spreadsheets read; {_FORMAT}")
        return
    quoted = _QUOTED.search(text)
    if quoted:
        faults.add(file, text.count("\n", 0, quoted.start()) + 1, 1, f"has its fields in quotes; {_FORMAT}")
        return
    for number, line in enumerate(text.split("\n"), 1):
        content = line.strip()
        if len(content.splitlines()) > 1:
            hidden = len(line) - len(line.lstrip()) + len(content.splitlines()[0])
            text = f"has a line break that Casbin takes for text (U+{ord(line[hidden]):04X}); {_FORMAT}"
            faults.add(file, number, hidden + 1, text)
            continue
        if not content or content.startswith(_COMMENTS):
            continue
        row = Row(file, number, line, _fields_of(line))
        bad = _UNREADABLE.search(line)
        if bad:
            faults.add(file, number, bad.start() + 1, f"has a `{bad.group()}`; no field may contain it")
            faults.skip_declaration(row)
            continue
        yield row


@cached_if_short
def _fields_of(line: str) -> tuple[str, ...]:
    # Most lines are also in the previous version. Interned, because thousands of courses have policies of the
    # same few texts.
    return tuple([sys.intern(field.strip()) for field in line.split(",")])


def delimiter_of(text: str, default: str = ",") -> str:
    """What separates the fields of the first row: a comma unless a spreadsheet wrote something else."""
    found = _DELIMITER.search(text)
    return found.group(1) if found else default


def trim_padding(rows: list[Row], faults: Faults) -> list[Row]:
    """The rows without empty fields beyond the width of their kind, which are one fault together.

    A spreadsheet makes all rows as wide as the widest.
    """
    trimmed, padded = [], []
    for row in rows:
        if not any(row.fields):
            padded.append(row)
            continue
        width = WIDTHS.get(row.kind, len(row.fields))
        if len(row.fields) > width and not any(row.fields[width:]):
            padded.append(row)
            trimmed.append(msgspec.structs.replace(row, fields=row.fields[:width]))
        else:
            trimmed.append(row)
    if padded:
        ends = "row ends" if len(padded) == 1 else "rows end"
        faults.at(
            padded[0],
            WIDTHS.get(padded[0].kind, 0),
            f"{len(padded)} {ends} in empty columns, as spreadsheets write them; {_FORMAT}",
        )
    return trimmed
