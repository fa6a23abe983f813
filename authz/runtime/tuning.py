"""Settings of the operating system and the interpreter for a process that does nothing but serve."""

from __future__ import annotations

import gc
import os
import resource
import sys
from contextlib import suppress

import structlog

from authz.runtime.settings import Settings

log = structlog.get_logger()

_OWN_FILES = 256
"""What a process opens besides its connections, generously: the replica, the database, its log."""
_SWITCH_INTERVAL_S = 0.0005
"""The write thread releases the GIL at each statement, and waits this long to get it back from a busy event
loop: with Python's default of 5 ms the statements of one transaction would take 50 ms."""


def schedule(settings: Settings) -> None:
    """With AUTHZ_SCHEDULE_AS_BATCH, run under Linux's SCHED_BATCH: so no thread of this process preempts
    another that runs.

    Call it before any thread starts: threads inherit the policy. gRPC passes a call from thread to thread,
    and a thread that preempts the one that woke it makes both wait. Does nothing where the policy is unknown
    or not permitted.
    """
    if settings.schedule_as_batch and hasattr(os, "SCHED_BATCH"):
        with suppress(OSError):
            os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def tune_interpreter() -> None:
    """Shorten the switch interval, and exempt what is loaded from garbage collection. Call it after start."""
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    gc.collect()
    gc.freeze()


def connection_limit(wanted: int) -> int:
    """How many connections this process may take: `wanted`, or fewer where it may not open as many files.

    Raises the soft limit on open files as far as that needs, which its children inherit. A process without a
    file to open could neither reach its database nor read its certificate again.
    """
    needed = wanted + _OWN_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if resource.RLIM_INFINITY != soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        with suppress(OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    limit = max(soft - _OWN_FILES, soft // 2)
    log.warning(
        "fewer connections than AUTHZ_MAX_CONNECTIONS; raise the hard limit on open files (LimitNOFILE)",
        connections=limit,
        open_files=soft,
    )
    return limit
