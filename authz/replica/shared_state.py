"""One page of shared memory about the replica, for the processes of a machine.

The follower writes it and servers read it with every snapshot, so it has a few words and no lock: the
generation of the replica to serve, the revision that it holds, and when the follower last knew that this was
the last committed revision.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import time
from functools import partial
from pathlib import Path

_FILE = "state"
_SIZE_BYTES = 4096
_BOOT, _SOURCE, GENERATION, CONFIRMED_AT, REVISION = range(5)
"""The words of the page. `CONFIRMED_AT` is 0 for never, which exceeds every limit on staleness. `REVISION` is
set after the replica holds it, so it may be behind for a moment, but never ahead."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NEVER = float("inf")
_NS_PER_S = 1e9

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
uptime_ns = partial(time.clock_gettime_ns, _CLOCK)
"""Nanoseconds since boot: the clock of the page. It continues while the machine is suspended, as the database
does."""


def identity_of(file: Path | int) -> tuple[int, int] | None:
    """Identifies a file, whatever its name. None if it does not exist."""
    try:
        found = os.fstat(file) if isinstance(file, int) else file.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _word(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


class SharedState:
    """The page of one replica's folder.

    Times count from boot, so that no step of the wall clock makes a state look fresher. They are invalid
    after another boot, and for another database.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / _FILE
        with self._path.open("a+b") as file:
            file.truncate(_SIZE_BYTES)
            self._identity = identity_of(file.fileno())
            self._map = mmap.mmap(file.fileno(), _SIZE_BYTES)
        self._bytes = memoryview(self._map)
        self.words = self._bytes.cast("Q")
        self._boot = _word(_BOOT_ID.read_text()) if _BOOT_ID.exists() else 0

    def begin(self, source: str) -> None:
        """Take over as the follower of `source`. Clears a confirmation of another source or boot."""
        if self.words[_BOOT] != self._boot or not self.is_of(source):
            self.words[CONFIRMED_AT] = 0
            self.words[_BOOT] = self._boot
            self.words[_SOURCE] = _word(source)

    def follows(self, source: str) -> bool:
        """Whether there is a replica of `source`, fresh or not."""
        return self.words[GENERATION] != 0 and self.is_of(source)

    def is_of(self, source: str) -> bool:
        """Whether the last follower of this folder followed `source`."""
        return self.words[_SOURCE] == _word(source)

    def is_of_this_boot(self) -> bool:
        """Whether the last follower began since this boot. If not, its times are invalid."""
        return self.words[_BOOT] == self._boot

    @property
    def generation(self) -> int:
        """The generation to serve; 0 for none."""
        return self.words[GENERATION]

    def publish(self, generation: int, revision: int) -> None:
        """Make servers serve this generation, which holds this revision."""
        self.words[REVISION] = revision
        self.words[GENERATION] = generation

    def withdraw(self) -> None:
        """Make servers serve no generation, and clear the confirmation."""
        self.words[GENERATION] = 0
        self.words[CONFIRMED_AT] = 0

    def advance(self, revision: int) -> None:
        """Set the revision that the served generation holds."""
        self.words[REVISION] = revision

    def confirm(self, at_ns: int) -> None:
        """Record that the replica held the last committed revision at this time of `uptime_ns`."""
        self.words[CONFIRMED_AT] = at_ns

    def is_gone(self) -> bool:
        """Whether this page is no longer in the folder: new processes would see another one."""
        return identity_of(self._path) != self._identity

    def is_replaced(self) -> bool:
        """Whether the folder now has another page."""
        return identity_of(self._path) not in (None, self._identity)

    def staleness_s(self) -> float:
        """Seconds since the replica was known to hold the last committed revision; infinite if never."""
        confirmed_at = self.words[CONFIRMED_AT]
        age_ns = uptime_ns() - confirmed_at
        # Without boot ids, a time in the future must be of another boot.
        return _NEVER if not confirmed_at or age_ns < 0 else age_ns / _NS_PER_S

    def close(self) -> None:
        """Unmap the page."""
        self.words.release()
        self._bytes.release()
        self._map.close()
