"""Opens a roster, a folder or a zip, and reads its CSV files row by row."""

from __future__ import annotations

import csv
import io
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec

from authz.domain.entities import MembershipKey
from authz.domain.errors import ErrorReason, InvalidArgumentError
from authz.domain.mutations import Mutation

Record = dict[str, str]


class Sourced(msgspec.Struct, frozen=True):
    """A mutation, with the file and line that it was read from."""

    mutation: Mutation
    file: str
    line: int


class RowFault(msgspec.Struct, frozen=True):
    """A fault of one row, which is skipped, or a note about it."""

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message}"


class ParsedSource(msgspec.Struct, frozen=True):
    """What was read: mutations in an order in which they can be applied, faults, and notes.

    `named` maps each reference of the source to the memberships that it names, with their lines, whether or
    not they are imported.
    """

    mutations: list[Sourced]
    faults: list[RowFault]
    notes: list[RowFault]
    named: dict[str, dict[MembershipKey, int]] = {}


class Folder:
    """The files of an export, in a folder or a zip. Raises `InvalidArgumentError` for other paths."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._zip: zipfile.ZipFile | None = None
        if path.is_dir():
            return
        if not path.is_file():
            raise unreadable(path, "is neither a folder nor a file")
        try:
            self._zip = zipfile.ZipFile(path)
            broken = self._zip.testzip()
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
            raise unreadable(path, f"is not a complete zip ({error}); download it again") from None
        except (RuntimeError, NotImplementedError):
            raise unreadable(path, "is encrypted or has unsupported compression; unpack it first") from None
        if broken is not None:
            raise unreadable(path, f"has a damaged `{broken}`; download it again")

    def has(self, name: str) -> bool:
        """Whether the export has this file."""
        return (self._path / name).is_file() if self._zip is None else name in self._zip.namelist()

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file of the export for reading bytes. Raises `InvalidArgumentError` if it is missing."""
        if not self.has(name):
            raise unreadable(self._path, f"has no `{name}`")
        with (self._path / name).open("rb") if self._zip is None else self._zip.open(name) as stream:
            yield stream


def read_csv(
    stream: IO[bytes], name: str, required: tuple[str, ...], optional: tuple[str, ...] = ()
) -> Iterator[tuple[int, Record]]:
    """Rows by column name, each with the number of its last line.

    Raises `InvalidArgumentError` if the file is not UTF-8, lacks a required column, has a column twice, has a
    row of another width or an unclosed quote, or has a column that differs from a known one only in case or
    punctuation: `enddate` must not be read as a missing `endDate`.
    """
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
    reader = csv.reader(text, strict=True)
    try:
        header = next(reader, None)
        if header is None:
            raise malformed(name, 1, "is empty; its first line must have the column names")
        _require_columns(header, name, required, optional)
        for values in reader:
            if not values:
                continue
            if len(values) != len(header):
                raise malformed(
                    name, reader.line_num, f"has {len(values)} fields, and the header has {len(header)}"
                )
            yield reader.line_num, dict(zip(header, values, strict=True))
    except UnicodeDecodeError:
        raise malformed(name, reader.line_num + 1, "is not UTF-8; save it as UTF-8") from None
    except csv.Error as error:
        raise malformed(name, reader.line_num, f"is not CSV ({error})") from None


def _require_columns(
    header: list[str], name: str, required: tuple[str, ...], optional: tuple[str, ...]
) -> None:
    plain = {_plain(column): column for column in (*required, *optional)}
    for column in header:
        if header.count(column) > 1:
            raise malformed(name, 1, f"has the column `{column}` twice; remove one")
        meant = plain.get(_plain(column), column)
        if meant != column:
            raise malformed(name, 1, f"has a column `{column}`; did you mean `{meant}`?")
    for column in required:
        if column not in header:
            raise malformed(name, 1, f"has no column `{column}`")


def _plain(column: str) -> str:
    return "".join(letter for letter in column.casefold() if letter.isalnum())


def malformed(name: str, line: int, problem: str) -> InvalidArgumentError:
    """The error for a file that is malformed at a line."""
    return InvalidArgumentError(ErrorReason.MALFORMED_FIELD, f"{name}:{line}: {problem}", field=name)


def unreadable(path: Path, problem: str) -> InvalidArgumentError:
    """The error for a path that cannot be read."""
    return InvalidArgumentError(ErrorReason.MALFORMED_FIELD, f"`{path}` {problem}", field="path")
