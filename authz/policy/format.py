"""Casbin CSV as this project writes it, from what a spreadsheet or another tool has written."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from authz.domain.errors import invalid
from authz.policy.rows import SEPARATOR_LINE, WIDTHS, delimiter_of

_COMMENT = "#"


def format_policy(data: bytes, *, file: str) -> str:
    """The same rows and comments in the same order: commas, one space after each, no padding, no BOM.

    It validates nothing. A field that Casbin cannot read, such as one with a comma, stays as it is, for
    validation to name. Raises `InvalidArgumentError` for what is not text, and for a file without any row
    of a policy, such as `invariants.toml`, which it would damage.
    """
    encoding = "utf-16" if data.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        raise invalid("file", f"`{file}` is not UTF-8; save it as UTF-8") from None
    if "\0" in text:
        raise invalid("file", f"`{file}` is not UTF-8; save it as UTF-8")
    text = SEPARATOR_LINE.sub("", text)
    lines = list(_lines(text, delimiter_of(text)))
    if not any(line.partition(",")[0] in WIDTHS for line in lines):
        raise invalid(
            "file", f"`{file}` has no row of a policy; name a file of Casbin CSV, such as `default.csv`"
        )
    return "".join(f"{line}\n" for line in lines).rstrip("\n") + "\n"


def _lines(text: str, usual: str) -> Iterator[str]:
    for line in text.splitlines():
        delimiter = delimiter_of(line, usual)  # rows that were added by hand may have another
        cells = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
        if cells and cells[0].startswith(_COMMENT):
            comment = line if line.lstrip().startswith(_COMMENT) else delimiter.join(cells)
            yield comment.rstrip(f"{delimiter} ").lstrip()
            continue
        cells = [cell.strip() for cell in cells]
        width = WIDTHS.get(cells[0], 0) if cells else 0
        while cells and not cells[-1] and len(cells) > width:
            cells.pop()
        yield ", ".join(_quoted(cell) for cell in cells).rstrip()


def _quoted(cell: str) -> str:
    return '"' + cell.replace('"', '""') + '"' if "," in cell else cell
