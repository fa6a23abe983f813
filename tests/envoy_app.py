"""A server in Envoy whose clock is a file, so that a test can set it."""

from __future__ import annotations

import mmap
import os
import sys
from pathlib import Path

from authz.runtime.application import Application
from authz.runtime.envoy import become_envoy
from authz.runtime.settings import load_settings

VARIABLE = "CLOCK_FILE"
_BYTES = 8


class SharedClock:
    """Microseconds in a file, which one process sets and another reads."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._held = mmap.mmap(file.fileno(), _BYTES)

    @classmethod
    def create(cls, path: Path, now: int) -> SharedClock:
        """A clock in a new file."""
        path.write_bytes(bytes(_BYTES))
        clock = cls(path)
        clock.set(now)
        return clock

    def now(self) -> int:
        """The time."""
        return int.from_bytes(self._held[:], sys.byteorder)

    def set(self, now: int) -> None:
        """Make it this time."""
        self._held[:] = now.to_bytes(_BYTES, sys.byteorder)


def main() -> None:
    """Become Envoy, with this module's application."""
    become_envoy(load_settings(), application="tests.envoy_app:application")


if path := os.environ.get(VARIABLE):
    application = Application(SharedClock(Path(path)).now)
