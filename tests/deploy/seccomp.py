"""Runs a program, which a system call that is not named kills, as `SystemCallFilter=` of systemd does.

python -m tests.deploy.seccomp read,write,… program argument…
"""

from __future__ import annotations

import ctypes
import os
import sys

LIBRARY = "libseccomp.so.2"
_KILL_PROCESS, _ALLOW = 0x80000000, 0x7FFF0000
_PR_SET_NO_NEW_PRIVS = 38


def main() -> None:
    """Load the filter, and become the program."""
    names, *command = sys.argv[1:]
    library = ctypes.CDLL(LIBRARY)
    library.seccomp_init.restype = ctypes.c_void_p
    rules = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(_KILL_PROCESS)))
    for name in names.split(","):
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:  # a call of this processor
            library.seccomp_rule_add(rules, ctypes.c_uint32(_ALLOW), number, 0)
    ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if library.seccomp_load(rules) != 0:
        raise SystemExit("the filter does not load")
    os.execv(command[0], command)  # noqa: S606  the command of the test


if __name__ == "__main__":
    main()
