"""What the processes of a machine tell each other of the replica: one page of shared memory.

The follower writes it, servers read it with every snapshot, so it is three words and no lock: which
generation of the replica is to be served, which revision that holds, and when the follower last knew
that this was the last committed one.
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
"""The words of the page. `CONFIRMED_AT` is 0 for never, which any bound on staleness refuses. `REVISION`
is set once the replica holds it, and so may be behind for a moment, and never ahead."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NEVER = float("inf")
_NS_PER_S = 1e9

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
uptime_ns = partial(time.clock_gettime_ns, _CLOCK)
"""Nanoseconds since the machine was started: the time that the page tells. It goes on while the machine is
suspended, as the database does."""


def identity_of(file: Path | int) -> tuple[int, int] | None:
    """What tells a file from another that comes to have its name; None when there is none."""
    try:
        found = os.fstat(file) if isinstance(file, int) else file.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _word(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


class SharedState:
    """The page of one replica's folder.

    Times are those since the machine was started, so that no step of the wall clock makes a state look
    fresher; they are worth nothing after another boot, or for another database.
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
        """Take over as follower of `source`: what was confirmed of another one, or before, is void."""
        if self.words[_BOOT] != self._boot or not self.is_of(source):
            self.words[CONFIRMED_AT] = 0
            self.words[_BOOT] = self._boot
            self.words[_SOURCE] = _word(source)

    def follows(self, source: str) -> bool:
        """Whether what is here, fresh or not, is a replica of `source`."""
        return self.words[GENERATION] != 0 and self.is_of(source)

    def is_of(self, source: str) -> bool:
        """Whether whoever followed here last followed `source`."""
        return self.words[_SOURCE] == _word(source)

    def is_of_this_boot(self) -> bool:
        """Whether whoever followed here last did since the machine was started: else its times are void."""
        return self.words[_BOOT] == self._boot

    @property
    def generation(self) -> int:
        """Which generation is to be served; 0 for none."""
        return self.words[GENERATION]

    def publish(self, generation: int, revision: int) -> None:
        """From now on this generation is served, and holds this revision."""
        self.words[REVISION] = revision
        self.words[GENERATION] = generation

    def withdraw(self) -> None:
        """From now on none is served, and nothing is known of how fresh the replica is."""
        self.words[GENERATION] = 0
        self.words[CONFIRMED_AT] = 0

    def advance(self, revision: int) -> None:
        """From now on the generation that is served holds this revision."""
        self.words[REVISION] = revision

    def confirm(self, at_ns: int) -> None:
        """At this time, of `uptime_ns`, the replica held the last committed revision."""
        self.words[CONFIRMED_AT] = at_ns

    def is_gone(self) -> bool:
        """Whether the folder no longer has this page: it was deleted, and whoever comes sees another."""
        return identity_of(self._path) != self._identity

    def is_replaced(self) -> bool:
        """Whether the folder has another page by now."""
        return identity_of(self._path) not in (None, self._identity)

    def staleness_s(self) -> float:
        """Seconds since the replica was known to hold the last committed revision."""
        confirmed_at = self.words[CONFIRMED_AT]
        age_ns = uptime_ns() - confirmed_at
        # Where boots cannot be told apart, a time that is still to come is of another.
        return _NEVER if not confirmed_at or age_ns < 0 else age_ns / _NS_PER_S

    def close(self) -> None:
        """Let go of the page."""
        self.words.release()
        self._bytes.release()
        self._map.close()
