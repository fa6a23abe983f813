"""The entry point of `authz`: runs the command line, or says what to install for it."""

from __future__ import annotations

import sys

from authz.cli import ERROR_EXIT_CODE


def main() -> None:
    """Run a command. Without the packages that it needs, one message and exit code 2."""
    try:
        from authz.cli.main import main as run

        run()
    except ModuleNotFoundError as error:
        missing = (error.name or "authz").partition(".")[0]
        if missing == "authz":
            raise
        print(
            f"error: the command line needs `{missing}`, which is not installed; "
            "run `pip install 'qalamchat-authz[server]'`",
            file=sys.stderr,
        )
        sys.exit(ERROR_EXIT_CODE)


if __name__ == "__main__":
    main()
