"""Runs a command that serves until it is stopped, and logs why it cannot start."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import structlog
import typer

from authz.cli import ERROR_EXIT_CODE
from authz.cli.errors import EXPECTED, message_of
from authz.runtime.settings import Settings, load_settings

log = structlog.get_logger()


def run_server(
    main: Callable[[Settings], Coroutine[Any, Any, None]], given: Mapping[str, str | bool | None]
) -> None:
    """Run `main` with the settings until it returns. Its errors are log lines, and exit code 2."""
    import uvloop

    from authz.runtime.liveness import run_watched
    from authz.runtime.logs import WRITER, configure_logging, log_uncaught

    configure_logging("info")
    log_uncaught()
    try:
        settings = load_settings(given)
        configure_logging(settings.log_level)
        uvloop.run(run_watched(main(settings)))
    except EXPECTED as error:
        log.error("cannot start", error=message_of(error))  # noqa: TRY400  the message says all
        raise typer.Exit(ERROR_EXIT_CODE) from None
    finally:
        WRITER.flush()
