"""Prints tables, trees, and progress on a terminal.

rich takes a tenth of a second to import, so only what draws with it imports it.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec

from authz.client.imports import Progress as Advance
from authz.domain.errors import escaped
from authz.domain.ids import ResourceRef, Scope, Subject
from authz.domain.instants import format_instant, from_datetime

FOUND_EXIT_CODE = 1
"""A command that looks for something has found it: a warning, a broken invariant, a failed test."""
_TIMES = {"at", "from", "until", "since", "now"}


def print_rows(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print aligned columns under headings, also in a pipe. An empty cell is `-`; each row is one line."""
    table = [columns, *([escaped(cell) or "-" for cell in row] for row in rows)]
    widths = [max(map(_width, cells)) for cells in zip(*table, strict=True)]
    for row in table:
        padded = [cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)]
        print("  ".join(padded).rstrip())


def _width(text: str) -> int:
    """How many columns of a terminal a text takes: two for each wide character, such as of Japanese."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def cell_text(value: object, name: str) -> str:
    """The value of a field of a record as the text of a cell."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and is_time(name):
        return format_instant(value)
    return "" if value is None else str(value)


def time_text(time: dt.datetime | None) -> str:
    """A time as RFC 3339 in UTC; empty for none."""
    return format_instant(from_datetime(time)) if time else ""


def print_json(value: object) -> None:
    """Print a value as one line of JSON.

    Times are RFC 3339; subjects, scopes and resources are as commands take them: `user:maya`.
    """
    print(bytes(json_of(value)).decode())


def json_of(value: object) -> msgspec.Raw:
    """A value as `print_json` prints it: encodes once what many lines repeat."""
    return msgspec.Raw(msgspec.json.encode(_plain(value)))


def _plain(value: Any, name: str = "") -> Any:
    """What JSON is made of, for the value of a field."""
    if hasattr(value, "_asdict"):  # a NamedTuple
        value = value._asdict()
    match value:
        case Subject() | Scope() | ResourceRef():
            return str(value)
        case msgspec.Struct(__struct_config__=config, __struct_fields__=names):
            tag = {config.tag_field: config.tag} if config.tag_field else {}
            return tag | {each: _plain(getattr(value, each), each) for each in names}
        case dict():
            return {key: _plain(each, key) for key, each in value.items()}
        case list() | tuple() | frozenset():
            return [_plain(each, name) for each in value]
    return format_instant(value) if type(value) is int and is_time(name) else value


def is_time(field: str) -> bool:
    """Whether the integer in a field is an `Instant`, by the name of the field."""
    return field.rpartition("_")[2] in _TIMES


@contextmanager
def progress_bar(label: str, total: int) -> Iterator[Advance]:
    """Show a progress bar on standard error if it is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    err = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err, disable=not err.is_terminal) as progress:
        task = progress.add_task(label, total=total)
        yield lambda done: progress.update(task, completed=done)
