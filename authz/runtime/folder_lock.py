"""Temporary folders of a running server."""

from __future__ import annotations

import fcntl
import os
import tempfile
from pathlib import Path

from authz.runtime.settings import MAX_SOCKET_PATH_BYTES


def parent_of_sockets(longest: str) -> str | None:
    """Where to make a folder in which the path of a socket is not too long; None for the usual place.

    `longest` is the longest path of a socket from there.
    """
    length = len(os.fsencode(tempfile.gettempdir() + longest))
    return None if length <= MAX_SOCKET_PATH_BYTES else "/tmp"  # noqa: S108  the folder gets a random name


def lock_temporary_folder(folder: Path) -> None:
    """Lock a folder until this process ends, whatever program it runs then.

    systemd-tmpfiles deletes what is old in /tmp, but nothing in a folder that somebody has locked.
    Source: https://www.freedesktop.org/software/systemd/man/latest/tmpfiles.d.html, "Age"
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    os.set_inheritable(descriptor, True)
    fcntl.flock(descriptor, fcntl.LOCK_SH)
