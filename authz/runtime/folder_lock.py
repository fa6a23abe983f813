"""Temporary folders of a running server."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def lock_temporary_folder(folder: Path) -> None:
    """Lock a folder until this process ends, whatever program it runs then.

    systemd-tmpfiles deletes what is old in /tmp, but nothing in a folder that somebody has locked.
    Source: https://www.freedesktop.org/software/systemd/man/latest/tmpfiles.d.html, "Age"
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    os.set_inheritable(descriptor, True)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
