"""The commits of this process that its own replica does not have yet."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_MAX_WAIT_S = 0.1
"""A commit may hang. Changes that others make must not wait for it."""


class LocalCommits:
    """Tells the thread that follows the change log to wait for a commit of this process, which is applied to
    the replica as soon as it is made: without that, the thread would read it from the database."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._in_progress = self._finished = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Commit, and apply what was committed, in the block."""
        with self._changed:
            self._in_progress += 1
        try:
            yield
        finally:
            with self._changed:
                self._in_progress -= 1
                self._finished += 1
                self._changed.notify_all()

    def wait(self) -> None:
        """Wait until the next one is applied, if one is in progress; for a tenth of a second at most."""
        with self._changed:
            finished = self._finished
            self._changed.wait_for(lambda: not self._in_progress or self._finished > finished, _MAX_WAIT_S)
