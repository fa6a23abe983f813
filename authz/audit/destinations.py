"""Where checkpoints are published."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from authz import https


class Destination(Protocol):
    """Where to publish. May wait, for a bounded time."""

    name: str
    """The name of the destination in logs."""

    def publish(self, note: str) -> None:
        """Publish a signed note. Raises `OSError`."""


class FileDestination(Destination):
    """A file that has the newest checkpoint, which replaces the one before as a whole."""

    def __init__(self, path: Path) -> None:
        self.name = f"file:{path}"
        self._path = path

    def publish(self, note: str) -> None:
        new = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            with new.open("w", encoding="utf-8") as file:
                file.write(note)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
        finally:
            new.unlink(missing_ok=True)


class StandardOutput(Destination):
    """Standard output: each checkpoint, with an empty line after it."""

    name = "stdout"

    def publish(self, note: str) -> None:
        os.write(1, f"{note}\n".encode())


class HttpsDestination(Destination):
    """An https address, to which each checkpoint is posted as text."""

    def __init__(self, url: str) -> None:
        self.name = self._url = url

    def publish(self, note: str) -> None:
        """Any answer but 2xx is a failure, a redirection, too."""
        https.post(self._url, note)
