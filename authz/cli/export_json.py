"""An export of a subject as one JSON document, line by line, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from authz.domain.exports import (
    EXPORT_FORMAT,
    ExportBegin,
    ExportedChange,
    ExportedRecord,
    ExportEnd,
    ExportItem,
)

_LISTS = ("records", "changes", "entries")
"""The fields of `SubjectExport` that hold items, in the order in which these come."""


def json_lines(items: Iterable[ExportItem]) -> Iterator[str]:
    """The lines of a `SubjectExport`, an item a line."""
    open_list, separator = -1, ""
    for item in items:
        match item:
            case ExportBegin():
                head = {
                    "format": EXPORT_FORMAT,
                    "subject": item.subject,
                    "committed_at": item.committed_at,
                    "retention": item.retention,
                }
                yield _text(head)[:-1] + ","
            case ExportEnd():
                yield from _opened(open_list, len(_LISTS) - 1)
                yield f'],"counts":{_text(item.counts)}}}'
            case _:
                wanted = _place_of(item)
                if wanted != open_list:
                    yield from _opened(open_list, wanted)
                    open_list, separator = wanted, ""
                yield separator + _text(item)
                separator = ","


def _opened(open_list: int, wanted: int) -> Iterator[str]:
    """End the list that is open, and begin those up to the wanted one."""
    for place in range(open_list + 1, wanted + 1):
        yield ("]," if place else "") + f'"{_LISTS[place]}":['


def _place_of(item: ExportItem) -> int:
    if isinstance(item, ExportedRecord):
        return 0
    return 1 if isinstance(item, ExportedChange) else 2


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()
