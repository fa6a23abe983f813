"""Reads CSV files row by row, and says on which line a file is malformed."""

from __future__ import annotations

import codecs
import csv
import io
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import IO

from authz.domain.errors import InvalidArgumentError, invalid
from authz.domain.errors import malformed as malformed_field
from authz.domain.vocabulary import join_names
from authz.importers.report import quoted

Record = dict[str, str]

_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_MAX_LISTED = 30
_MAX_LINE_LENGTH = 1 << 20
_FLAGS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def read_csv(
    stream: IO[bytes],
    name: str,
    required: Sequence[str],
    optional: Sequence[str] = (),
    *,
    others: bool = False,
) -> Iterator[tuple[int, Record]]:
    """Rows by column name, each with the number of its first line. A row without any value is empty.

    Only the columns that are named are read, with `others` all. The stream must be seekable. Raises
    `InvalidArgumentError` if the file is not UTF-8, lacks a required column, has a column twice, has a row of
    another width or an unclosed quote, or has a column that differs from a named one only in case or
    punctuation: `enddate` must not be read as a missing `endDate`.
    """
    reader = csv.reader(read_lines(stream, name), strict=True)
    line = 1
    try:
        header = next(reader, None)
        if header is None:
            raise malformed_line(name, 1, "is empty; its first line must have the column names")
        _require_columns(header, name, required, optional)
        wanted = {
            column: at
            for at, column in enumerate(header)
            if column and (others or column in required or column in optional)
        }
        columns, width = list(wanted.items()), len(header)
        line = reader.line_num + 1
        for values in reader:
            if values and len(values) != width:
                raise malformed_line(name, line, _other_width(len(values), width, reader.line_num - line))
            if values:
                row = {column: values[at] for column, at in columns}
                yield line, row if any(map(str.strip, values)) else {}
            line = reader.line_num + 1
    except csv.Error as error:
        raise malformed_line(
            name, line, f"is not CSV ({error}); look for a quote that is not closed"
        ) from None


def read_lines(stream: IO[bytes], name: str) -> Iterator[str]:
    """The lines of a UTF-8 file, without a byte order mark. The stream must be seekable.

    Raises `InvalidArgumentError` if the file is not UTF-8, and for a line that is too long, before it fills
    the memory.
    """
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    try:
        for number in itertools.count(1):
            line = text.readline(_MAX_LINE_LENGTH)
            if len(line) == _MAX_LINE_LENGTH:
                problem = f"is a line of {_MAX_LINE_LENGTH} characters or more"
                raise malformed_line(name, number, f"{problem}; look for a quote that is not closed")
            if not line:
                return
            yield line
    except UnicodeDecodeError:
        raise malformed_line(name, *_not_utf8(stream)) from None


def _other_width(found: int, width: int, more_lines: int) -> str:
    across = f" on {more_lines + 1} lines; look for a quote that is not closed" if more_lines else ""
    fields = "1 field" if found == 1 else f"{found} fields"
    return f"has {fields}, and the header has {width}{across}"


def _not_utf8(stream: IO[bytes]) -> tuple[int, str]:
    """The first line that is not UTF-8, and the problem."""
    stream.seek(0)
    line = 0
    for chunk in stream:
        if not line and (chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in chunk):
            return 1, "is UTF-16; save the file as UTF-8"
        for part in chunk.splitlines():
            line += 1
            try:
                part.decode()
            except UnicodeDecodeError as error:
                return line, f"is not UTF-8 (byte 0x{part[error.start]:02x}); save the file as UTF-8"
    return line, "is not UTF-8; save the file as UTF-8"


def _require_columns(header: list[str], name: str, required: Sequence[str], optional: Sequence[str]) -> None:
    named = (*required, *optional)
    for column in filter(None, header):
        if "\0" in column:
            raise malformed_line(name, 1, "has NUL characters, as UTF-16 does; save the file as UTF-8")
        if header.count(column) > 1:
            raise malformed_line(name, 1, f"has the column {quoted(column)} twice; remove one")
        meant = misspelt(column, named)
        if meant:
            raise malformed_line(name, 1, f"has a column {quoted(column)}; did you mean `{meant}`?")
    for column in required:
        if column not in header:
            raise malformed_line(name, 1, _without(column, header))


def _without(column: str, header: list[str]) -> str:
    if len(header) == 1:
        for separator, words in _SEPARATORS.items():
            if separator in header[0]:
                return f"is separated by {words}; save the file separated by commas"
    return f"has no column `{column}`; its columns are {join_names([*map(quoted, header)], _MAX_LISTED)}"


def misspelt(text: str, names: Iterable[str]) -> str | None:
    """The name from which the text differs only in case or punctuation. None for a name itself."""
    found = next((each for each in names if _letters(each) == _letters(text)), text)
    return None if found == text else found


def _letters(text: str) -> str:
    return "".join(letter for letter in text.casefold() if letter.isalnum())


def parse_flag(text: str, *, field: str) -> bool:
    """Read `true`, `yes` or `1`, or their opposites, in any case. Raises `InvalidArgumentError`."""
    flag = _FLAGS.get(text.strip().lower())
    if flag is None:
        raise malformed_field(field, f"{quoted(text)} is neither `true` nor `false`")
    return flag


def malformed_line(name: str, line: int, problem: str) -> InvalidArgumentError:
    """The error for a file that is malformed at a line."""
    return invalid(name, f"{name}:{line}: {problem}")
