"""Settings of the operating system and the interpreter for a process that does nothing but serve."""

from __future__ import annotations

import gc
import os
import sys
from contextlib import suppress

_SWITCH_INTERVAL_S = 0.0005
"""The write thread releases the GIL at each statement, and waits this long to get it back from a busy event
loop: with Python's default of 5 ms the statements of one transaction would take 50 ms."""


def schedule_as_batch() -> None:
    """Run under Linux's SCHED_BATCH, so that no thread of this process preempts another that runs.

    Call it before any thread starts: threads inherit the policy. gRPC passes a call from thread to thread,
    and a thread that preempts the one that woke it makes both wait. Does nothing where the policy is unknown
    or not permitted.
    """
    if hasattr(os, "SCHED_BATCH"):
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def tune_interpreter() -> None:
    """Shorten the switch interval, and exempt what is loaded from garbage collection. Call it after start."""
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    gc.collect()
    gc.freeze()
