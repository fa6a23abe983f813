"""Where checkpoints are published."""

from __future__ import annotations

import os
import ssl
import urllib.request
from pathlib import Path
from typing import Any, Protocol

_TIMEOUT_S = 10.0


class Destination(Protocol):
    """Where to publish. May wait, for a bounded time."""

    name: str
    """For logs."""

    def publish(self, note: str) -> None:
        """Publish a signed note. Raises `OSError`, `ValueError` or `HTTPException`."""


class FileDestination:
    """A file that has the newest checkpoint, which replaces the one before as a whole."""

    def __init__(self, path: Path) -> None:
        self.name = f"file:{path}"
        self._path = path

    def publish(self, note: str) -> None:
        """See `Destination.publish`."""
        new = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        try:
            with new.open("w", encoding="utf-8") as file:
                file.write(note)
                file.flush()
                os.fsync(file.fileno())
            new.replace(self._path)
        finally:
            new.unlink(missing_ok=True)


class StandardOutput:
    """Standard output: each checkpoint, with an empty line after it."""

    name = "stdout"

    def publish(self, note: str) -> None:
        """See `Destination.publish`."""
        os.write(1, f"{note}\n".encode())


class HttpsDestination:
    """An https address, to which each checkpoint is posted as text."""

    def __init__(self, url: str) -> None:
        self.name = self._url = url

    def publish(self, note: str) -> None:
        """See `Destination.publish`. Any answer but 2xx is a failure, a redirection, too."""
        request = urllib.request.Request(  # noqa: S310  the settings accept https alone
            self._url, note.encode(), {"content-type": "text/plain; charset=utf-8"}, method="POST"
        )
        opener = urllib.request.build_opener(
            _NoRedirect, urllib.request.HTTPSHandler(context=ssl.create_default_context())
        )
        with opener.open(request, timeout=_TIMEOUT_S):
            pass


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The operator named one address; no answer may send the server to another."""

    def redirect_request(self, *_: Any) -> None:
        return None
