"""A file that is read again when it changes, within a fraction of a second."""

from __future__ import annotations

import codecs
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import structlog

from authz.access.authentication import unverifiable
from authz.domain.errors import InvalidArgumentError, malformed
from authz.telemetry.metrics import RELOAD_FAILURES

T = TypeVar("T")

log = structlog.get_logger()

_RECHECK_S = 0.25


class WatchedFile(Generic[T]):
    """The current content of a file. While it cannot be read, it lets nobody in.

    Keeping what it said before would let in whom an edit with a mistake was meant to keep out. A file that
    lets nobody in, such as one of limits, may keep that.
    """

    def __init__(
        self,
        path: str,
        parse: Callable[[bytes], T],
        *,
        setting: str,
        holds: str,
        keeps_last: bool = False,
    ) -> None:
        """`parse` raises `InvalidArgumentError`, and so does this, for a file that cannot be used.

        `setting` names the file, in errors; `holds` is what the file has, in metrics.
        """
        self._path, self._parse, self._setting, self._holds = Path(path), parse, setting, holds
        self._keeps_last = keeps_last
        self._version = file_version(self._path)
        self._looked_at = time.monotonic()
        self._value: T | None = self._read()

    def value(self) -> T:
        """The parsed content. Raises `UnavailableError` while the file cannot be used."""
        now = time.monotonic()
        if now - self._looked_at >= _RECHECK_S:
            self._looked_at = now
            version = file_version(self._path)
            if version != self._version:
                self._version = version
                self._reload()
        if self._value is None:
            raise unverifiable("the server cannot read the file by which it knows callers; its log says why")
        return self._value

    def _reload(self) -> None:
        if not self._keeps_last:
            self._value = None  # first, so that an error nobody foresaw lets nobody in either
        try:
            self._value = self._read()
        except InvalidArgumentError as error:
            RELOAD_FAILURES.labels(self._holds).inc()
            if self._keeps_last:
                log.error("file not read again; what it said before holds", error=error.message)  # noqa: TRY400  says all
                return
            log.error("callers are refused until the file is mended", error=error.message)  # noqa: TRY400  says all
        else:
            log.info("file read again", file=str(self._path), holds=self._holds)

    def _read(self) -> T:
        try:
            content = self._path.read_bytes().removeprefix(codecs.BOM_UTF8)  # of editors on Windows
        except OSError as error:
            raise self._unusable(error.strerror or str(error)) from None
        try:
            return self._parse(content)
        except InvalidArgumentError as error:
            raise self._unusable(error.message) from None

    def _unusable(self, problem: str) -> InvalidArgumentError:
        return malformed(self._setting, f"names `{self._path}`, which cannot be used: {problem}")


def file_version(path: str | Path) -> tuple[int, int, int] | None:
    """What changes with the content of a file, behind any link; None if it is not there."""
    try:
        found = os.stat(path)  # noqa: PTH116  takes both
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
