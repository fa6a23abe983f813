"""Opens an export: a folder of CSV files, or a zip of them, also from a pipe."""

from __future__ import annotations

import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import IO

from authz.domain.vocabulary import join_names
from authz.importers.report import quoted
from authz.importers.source_file import is_stream, open_source, unreadable

MAX_UNPACKED_BYTES = 2 << 30
"""Of the files of a zip together. A small zip can hold far more than the memory of a machine."""
_SIGNATURE = b"PK"
_MAX_LISTED = 20


class Archive:
    """The files of an export. Raises `InvalidArgumentError` if the path is neither a folder nor a sound zip.

    In a zip, the files may all be in one folder, as most tools pack them.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._zip: zipfile.ZipFile | None = None
        self._members: dict[str, str] = {}
        if path.is_dir():
            self._names = sorted(each.name for each in path.iterdir() if each.is_file())
            return
        if not (path.is_file() or is_stream(path)):
            raise unreadable(path, "is neither a folder nor a file")
        self._zip = _opened(path)
        # Some programs on Windows separate folders by a backslash. macOS adds a folder to each zip.
        names = [(member.replace("\\", "/"), member) for member in self._zip.namelist()]
        files = [each for each in names if not each[0].startswith("__MACOSX/") and not each[0].endswith("/")]
        folders = {
            name[: name.rfind("/") + 1] for name, _ in files if not PurePath(name).name.startswith(".")
        }
        prefix = folders.pop() if len(folders) == 1 else ""
        self._names = sorted(name.removeprefix(prefix) for name, _ in files)
        self._members = {name.removeprefix(prefix): member for name, member in files}

    def has(self, name: str) -> bool:
        """Whether the export has this file. Raises `InvalidArgumentError` if it has it elsewhere, in another
        case or in a folder, or several times.

        Else `Users.csv` would be overlooked, and with it who is disabled.
        """
        if self._alike(name):
            self.require(name)
        return name in self._names

    def require(self, name: str, *, why: str = "") -> None:
        """Raise `InvalidArgumentError`, which lists the files of the export, if it lacks this one or has
        several of its name.

        `why` continues the name of the file: what asks for it.
        """
        alike = self._alike(name)
        if len(alike) > 1:
            found = join_names([*map(quoted, alike)], _MAX_LISTED)
            raise unreadable(
                self._path, f"has more than one `{name}`: {found}; keep only that of this export"
            )
        if alike == [name]:
            return
        meant = alike[0] if alike else None
        advice = f"; rename {quoted(meant)} to `{name}`" if meant else ""
        if meant and "/" in meant:
            advice = f"; unpack it and name the folder of {quoted(meant)}"
        nested = next(self._path.glob(f"*/{name}"), None) if self._zip is None else None
        if nested is not None:
            advice = f"; name the folder {quoted(nested.parent.name)} in it"
        names = join_names([*map(quoted, self._names)], _MAX_LISTED) or "no files"
        raise unreadable(self._path, f"has no `{name}`{why}; it has {names}{advice}")

    def _alike(self, name: str) -> list[str]:
        """The files of this name, in any case and folder."""
        return [each for each in self._names if PurePath(each).name.lower() == name.lower()]

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Open a file of the export for reading bytes. Raises `InvalidArgumentError` if it is missing."""
        self.require(name)
        opened = (self._path / name).open("rb") if self._zip is None else self._zip.open(self._members[name])
        with opened as stream:
            yield stream


def _opened(path: Path) -> zipfile.ZipFile:
    stream = open_source(path)
    try:
        if stream.read(len(_SIGNATURE)) != _SIGNATURE:
            raise unreadable(path, "is neither a folder nor a zip; name the folder of the CSV files")
        opened = zipfile.ZipFile(stream)
        size = sum(each.file_size for each in opened.infolist())
        if size > MAX_UNPACKED_BYTES:
            problem = f"would unpack to {size >> 20} MiB, more than {MAX_UNPACKED_BYTES >> 20}"
            raise unreadable(path, f"{problem}; if that is right, unpack it and name the folder")
        broken = opened.testzip()
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, ValueError) as error:
        raise unreadable(path, f"is not a complete zip ({error}); download it again") from None
    except (RuntimeError, NotImplementedError):
        raise unreadable(path, "is encrypted or has unsupported compression; unpack it first") from None
    if broken is not None:
        raise unreadable(path, f"has a damaged {quoted(broken)}; download it again")
    return opened
