"""The ids of a roster as ids of the directory. Longer ones are replaced by a digest, and recorded."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import os
import re
import tempfile
from pathlib import Path

from authz.domain.errors import malformed
from authz.domain.ids import MAX_ID_LENGTH, is_id, malformed_id, refused_id
from authz.importers.oneroster.source_ref import MAX_SOURCED_ID_LENGTH, SourceRef, parse_source_ref
from authz.importers.report import quoted
from authz.importers.tables import read_csv

MAX_LENGTH = 255
"""Of a sourcedId, by the standard."""
_PREFIX = "h~"
_LONG = re.compile(r"[A-Za-z0-9._~@+=|/:\-]{1,255}")
_COLUMNS = ("id", "sourcedId")


class SourcedIds:
    """Converts ids, and remembers those that it replaced: `replaced` maps the new id to the original."""

    def __init__(self) -> None:
        self.replaced: dict[str, str] = {}

    def parse(self, text: str, *, field: str) -> str:
        """The id for a sourcedId of a class or user. Raises `InvalidArgumentError` that names `field`."""
        if len(text) <= MAX_ID_LENGTH and is_id(text) and not text.startswith(_PREFIX):
            return text
        if _LONG.fullmatch(text):
            return self._replace(text)
        if len(text) <= MAX_ID_LENGTH:
            raise malformed_id(text, field=field)
        problem = f"is longer than {MAX_LENGTH} characters or has one that is not allowed"
        raise refused_id(field, f"{quoted(text)} {problem}")

    def parse_reference(self, text: str) -> str:
        """The sourcedId of an enrollment as a `SourceRef` holds it."""
        if len(text) > MAX_LENGTH or "\x00" in text:
            problem = f"is longer than {MAX_LENGTH} characters or has a NUL"
            raise refused_id("sourcedId", f"{quoted(text)} {problem}")
        plain = parse_source_ref(text) == SourceRef(text) and not text.startswith(_PREFIX)
        return text if plain and len(text) <= MAX_SOURCED_ID_LENGTH else self._replace(text)

    def _replace(self, text: str) -> str:
        digest = hashlib.blake2b(text.encode(), digest_size=20).digest()
        new = _PREFIX + base64.b32encode(digest).decode().lower()
        self.replaced[new] = text
        return new

    def save(self, path: Path) -> None:
        """Add the replaced ids to a CSV file, `id,sourcedId`, which is written whole or not at all.

        Raises `InvalidArgumentError` for a path without a folder.
        """
        if not path.parent.is_dir():
            raise malformed(
                "--id-map", f"is in `{path.parent}`, which is no folder; make it, or name another"
            )
        known: dict[str, str] = {}
        if path.exists():
            with path.open("rb") as stream:
                rows = read_csv(stream, path.name, _COLUMNS)
                known = {row["id"]: row["sourcedId"] for _, row in rows if row}
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows([_COLUMNS, *sorted((known | self.replaced).items())])
        number, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(number, "w", encoding="utf-8") as stream_out:
            stream_out.write(text.getvalue())
        Path(temporary).replace(path)
