"""The files of a policy as one text: a JSON object of file names to texts, in one form only."""

from __future__ import annotations

import codecs
import hashlib
import re
from collections.abc import Mapping

import msgspec

from authz.domain.errors import malformed

FORMAT = 1
"""Increase it when a release writes files that the one before would read differently."""

MAX_FILES = 256
MAX_FILES_BYTES = 1 << 20
"""Of the text of all files together, so that a version fits into one message of the API."""

NO_FILES = "{}"
"""The text of no files: what stands for those of a version or a draft that is listed without them."""
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}(/[A-Za-z0-9_-][A-Za-z0-9._-]{0,63}){0,3}")
_NOT_TEXT = re.compile("[\0\ud800-\udfff]")
_decoder = msgspec.json.Decoder(dict[str, str])


def files_text(files: Mapping[str, str]) -> str:
    """The text of files. Equal files have equal texts, in whatever order they come."""
    return msgspec.json.encode(dict(sorted(files.items()))).decode()


def read_files(text: str) -> dict[str, str]:
    """The files of a text, by name, ordered by name. Raises `ValueError` for any other text."""
    return _decoder.decode(text)


def same_files(text: str, other: str) -> bool:
    """Whether two texts are of the same files, apart from their line endings: a checkout on Windows has
    others, and is no other policy."""
    return text == other or _with_newlines(text) == _with_newlines(other)


def _with_newlines(text: str) -> dict[str, str]:
    return {name: _newlines(content) for name, content in read_files(text).items()}


def _newlines(content: str) -> str:
    """With a lone carriage return as it is, which Casbin takes for text."""
    return content.replace("\r\n", "\n")


def decode_file(data: bytes) -> str:
    """The text of a file on disk, each line of which ends with a newline. Raises `UnicodeDecodeError`."""
    return _newlines(data.decode())


def why_not_utf8(name: str, data: bytes) -> str:
    """What to do about a file that is not UTF-8."""
    if name.lower().endswith(".csv") and data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "is UTF-16; run `authz policy format --write` on the file"
    return "is not UTF-8; save it as UTF-8"


def files_digest(text: str, files_format: int = FORMAT) -> str:
    """The digest of a text of files, in hexadecimal, as files of a format.

    It differs for every format but the first, so that a server does not take files that a later release reads
    differently for the same files, which it may have compiled.
    """
    stated = text if files_format == 1 else f"format {files_format}\0{text}"
    return hashlib.sha256(stated.encode()).hexdigest()


def validate_files(text: str, *, field: str) -> None:
    """Raise `InvalidArgumentError` (MALFORMED_FIELD) for a text that is not of files that can be kept."""
    try:
        files = read_files(text)
    except ValueError:
        raise malformed(field, "are not readable") from None
    require_files(files, field=field)
    if files_text(files) != text:
        raise malformed(field, "are not in their usual form")


def require_files(files: Mapping[str, str], *, field: str) -> None:
    """Raise `InvalidArgumentError` (MALFORMED_FIELD) for files that cannot be kept: too many, too large, with
    other names than plain relative paths, or no text."""
    if not 1 <= len(files) <= MAX_FILES:
        raise malformed(field, f"has {len(files)} files; send 1 to {MAX_FILES}")
    size_bytes = 0
    for name, text in files.items():
        if not _NAME.fullmatch(name):
            raise malformed(
                field,
                f"has a file named `{ascii(name[:64])[1:-1]}`; use letters, digits, `.`, `_` and `-`, and `/`"
                " for a folder",
            )
        if _NOT_TEXT.search(text):
            raise malformed(field, f"has the file `{name}`, which is not text; leave it out")
        if any(folder in files for folder in _folders_of(name)):
            raise malformed(field, f"has `{name}` and a file with the name of its folder; rename one")
        size_bytes += len(text.encode())
    if size_bytes > MAX_FILES_BYTES:
        largest = max(files, key=lambda name: len(files[name].encode()))
        text = (
            f"has {size_bytes} bytes; at most {MAX_FILES_BYTES} are kept, and the largest file is `{largest}`"
        )
        raise malformed(field, text)


def _folders_of(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]
