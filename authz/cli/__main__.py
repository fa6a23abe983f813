"""The entry point of `authz`: runs the command line, or says what to install for it."""

from __future__ import annotations

import os
import signal
import sys

import authz
from authz.cli import ERROR_EXIT_CODE, INTERRUPTED_EXIT_CODE
from authz.cli.fault import drop, open_missing_streams, print_fault, require_written
from authz.runtime.gc_freeze import without_collections

_SERVERS = {"serve", "follow"}
"""The commands that run until they are stopped."""


def main() -> None:
    """Run a command. Without the packages that it needs, one message and exit code 2."""
    open_missing_streams()
    if sys.argv[1:] == ["--version"]:  # answered here, so that an installation of the client alone can say it
        _print_version()
        return
    # gRPC writes lines of its own to standard error, where an error of a command is one line, and the log of
    # a server is JSON that does not block while nobody reads it.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    if not _SERVERS.isdisjoint(sys.argv):
        _exit_at_stop_signals()
    try:
        with without_collections():
            from authz.cli.main import main as run

        run()
    except (
        KeyboardInterrupt
    ):  # during the imports or the parsing; later, typer ends the command with this code
        sys.exit(INTERRUPTED_EXIT_CODE)
    except OSError as error:  # of a message that cannot be written
        print_fault("FAILED_PRECONDITION", str(error), {})
        sys.exit(ERROR_EXIT_CODE)
    except ModuleNotFoundError as error:
        missing = (error.name or "authz").partition(".")[0]
        if missing == "authz":
            raise
        print_fault(
            "FAILED_PRECONDITION",
            f"the command line needs `{missing}`, which is not installed; "
            "run `pip install 'qalamchat-authz[server]'`",
            {"package": missing},
        )
        sys.exit(ERROR_EXIT_CODE)


def _print_version() -> None:
    try:
        print(f"authz {authz.__version__}")
        require_written()
    except BrokenPipeError:
        drop(sys.stdout)
    except OSError as error:
        print_fault("FAILED_PRECONDITION", str(error), {})
        sys.exit(ERROR_EXIT_CODE)


def _exit_at_stop_signals() -> None:
    """End the process with exit code 0 at SIGTERM or SIGINT, until an event loop handles them.

    The imports take a second, and the kernel drops a signal that process 1 of a container does not handle.
    No exception ends them: code in C that imports would swallow it, or turn it into another one.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))


if __name__ == "__main__":
    main()
