"""A process that erases Maya, and kills itself after so many statements, or a while later.

Usage: URL STATEMENTS DELAY_S. With a delay, the signal comes in the middle of a statement, such as VACUUM.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from sqlalchemy import Engine, event

from authz.domain.erasures import ErasureRequest
from authz.domain.errors import ErrorReason, FailedPreconditionError
from authz.domain.origin import Origin
from tests.store.directory import open_with, user

REQUEST = ErasureRequest(subject=user("maya"), origin=Origin("service:dpo", "request 17"), orphans=True)


def main() -> None:
    """Begin the erasure, or go on with it, to its end."""
    url, statements, delay_s = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    done = 0

    def count(*_: object) -> None:
        nonlocal done
        done += 1
        if done == statements and delay_s:
            threading.Timer(delay_s, _kill).start()
        elif done == statements:
            _kill()

    event.listen(Engine, "before_cursor_execute", count)
    store = open_with(url, contents_at_once=3)
    try:
        store.personal_data.begin_erasure(REQUEST)
    except FailedPreconditionError as error:
        assert error.reason is ErrorReason.SUBJECT_ERASED, error  # a process before has begun it
    while store.personal_data.erasure_progress() is not None:
        store.personal_data.advance_erasure()
    store.close()


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
