"""The state of the replica that the processes of a machine share: one page of shared memory.

The follower writes the page, and servers read it with every snapshot. Each value is one 64-bit word, so no
lock is needed to read: the generation to serve, the revision that it holds, when the follower last confirmed
that this is the head, and the revision that it must hold before any process answers from it.
"""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from authz.replica.folder import make_private_folder, private_opener

STATE_FILE = "state"
_SIZE_BYTES = 4096
_BOOT, _SOURCE, GENERATION, CONFIRMED_AT, REVISION, REQUIRED = range(6)
"""The words of the page. `CONFIRMED_AT` is 0 for never, which exceeds every bound on staleness. `REVISION` is
set after the replica holds it: it may be behind for a moment, but never ahead. `REQUIRED` is the greatest
revision that was acknowledged on this machine before the replica held it; 0 for none."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NEVER = float("inf")
_NS_PER_S = 1e9

_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
uptime_ns = partial(time.clock_gettime_ns, _CLOCK)
"""Nanoseconds since boot, the clock of the page. It continues while the machine is suspended, because the
database does, too."""


def identity_of(file: Path | int) -> tuple[int, int] | None:
    """Device and inode, which differ for another file of the same name; None if there is no file."""
    try:
        found = os.fstat(file) if isinstance(file, int) else file.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _word(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


class SharedState:
    """The page of one replica folder.

    Times are measured since boot, so that a step of the wall clock cannot make a state look fresher. They are
    void after another boot, and for another database.
    """

    def __init__(self, folder: Path) -> None:
        make_private_folder(folder)
        self._path = folder / STATE_FILE
        self._file = open(self._path, "a+b", opener=private_opener)  # noqa: SIM115  `close` closes it
        try:
            size = os.fstat(self._file.fileno()).st_size
            while size < _SIZE_BYTES:
                # Written, not only made longer: on a full disk, a write to a hole would end the process.
                size += os.write(self._file.fileno(), bytes(_SIZE_BYTES - size))
            self._identity = identity_of(self._file.fileno())
            self._map = mmap.mmap(self._file.fileno(), _SIZE_BYTES)
        except BaseException:
            self._file.close()
            raise
        self._bytes = memoryview(self._map)
        self.words = self._bytes.cast("Q")
        self._boot = _word(_BOOT_ID.read_text()) if _BOOT_ID.exists() else 0

    def begin(self, source: str) -> None:
        """Become the follower of `source`; void what was confirmed of another source or before this boot."""
        if self.words[_BOOT] != self._boot or not self.is_of(source):
            self.words[CONFIRMED_AT] = 0
            self.words[_BOOT] = self._boot
            if not self.is_of(source):
                with self._locked():
                    self.words[REQUIRED] = 0
            self.words[_SOURCE] = _word(source)

    def follows(self, source: str) -> bool:
        """Whether the folder has a replica of `source`, however stale."""
        return self.words[GENERATION] != 0 and self.is_of(source)

    def is_of(self, source: str) -> bool:
        """Whether the last follower of this folder followed `source`."""
        return self.words[_SOURCE] == _word(source)

    def is_of_this_boot(self) -> bool:
        """Whether the last follower ran since this boot; otherwise its times are void."""
        return self.words[_BOOT] == self._boot

    @property
    def generation(self) -> int:
        """The generation to serve; 0 for none."""
        return self.words[GENERATION]

    def publish(self, generation: int, revision: int) -> None:
        """Serve this generation, which holds this revision."""
        self.words[REVISION] = revision
        self.words[GENERATION] = generation

    def withdraw(self) -> None:
        """Serve no generation; its staleness is unknown from now on."""
        self.words[GENERATION] = 0
        self.words[CONFIRMED_AT] = 0

    def advance(self, revision: int) -> None:
        """Record that the served generation now holds this revision."""
        self.words[REVISION] = revision

    def require(self, revision: int) -> None:
        """Let no process of the machine answer before the replica holds this revision, which is committed."""
        with self._locked():
            self.words[REQUIRED] = max(self.words[REQUIRED], revision)

    def release(self, required: int) -> None:
        """Require nothing any more, unless another process has required a greater revision since."""
        with self._locked():
            if self.words[REQUIRED] == required:
                self.words[REQUIRED] = 0

    def is_behind(self) -> bool:
        """Whether the replica does not yet hold a write that this machine has acknowledged."""
        return self.words[REVISION] < self.words[REQUIRED]

    def confirm(self, at_ns: int) -> None:
        """Record that at this time, by `uptime_ns`, the replica held the head."""
        self.words[CONFIRMED_AT] = at_ns

    def is_gone(self) -> bool:
        """Whether this page was deleted from the folder: processes that start now do not see it."""
        return identity_of(self._path) != self._identity

    def is_replaced(self) -> bool:
        """Whether the folder has a new page in place of this one."""
        return identity_of(self._path) not in (None, self._identity)

    def staleness_s(self) -> float:
        """Seconds since the follower last confirmed that the replica held the head; infinite for never."""
        confirmed_at = self.words[CONFIRMED_AT]
        age_ns = uptime_ns() - confirmed_at
        # Where the kernel gives no boot id, a time in the future must be of another boot.
        return _NEVER if not confirmed_at or age_ns < 0 else age_ns / _NS_PER_S

    def close(self) -> None:
        """Unmap the page."""
        self.words.release()
        self._bytes.release()
        self._map.close()
        self._file.close()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Exclude other processes that change `REQUIRED`: the only word with several writers."""
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
