"""The commands that need the settings of a server: their options, and how those that serve run.

Their options are settings of the server: `--max-watches` for AUTHZ_MAX_WATCHES. AUTHZ_DATABASE_URL is
`--database`, too, as in every command.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping
from typing import Annotated, Any, TypeVar, get_args

import msgspec
import typer

from authz.cli import ERROR_EXIT_CODE
from authz.cli.errors import EXPECTED, message_of
from authz.cli.options import DATABASE_FLAGS
from authz.runtime.settings import PREFIX, Settings, load_settings

Command = TypeVar("Command", bound=Callable[..., None])


def run_server(
    main: Callable[[Settings], Coroutine[Any, Any, None]], given: Mapping[str, str | bool | None]
) -> None:
    """Run `main` with the settings until it returns. Its errors are log lines, and exit code 2."""
    import structlog
    import uvloop

    from authz.runtime.liveness import run_beating
    from authz.runtime.logs import WRITER, configure_logging, log_uncaught

    configure_logging("info")
    log_uncaught()
    try:
        settings = load_settings(given)
        configure_logging(settings.log_level)
        uvloop.run(run_beating(main(settings)))
    except EXPECTED as error:
        structlog.get_logger().error("cannot start", error=message_of(error))
        raise typer.Exit(ERROR_EXIT_CODE) from None
    finally:
        WRITER.flush()


def setting_options(*names: str) -> Callable[[Command], Command]:
    """Give a command that takes `**given` an option for each of these settings, by default for all.

    Its other parameters, keyword-only ones, stay.
    """
    fields = msgspec.structs.fields(Settings)
    parameters = [_parameter(field) for field in fields if field.name in names or not names]

    def decorate(command: Command) -> Command:
        own = [
            each
            for each in inspect.signature(command, eval_str=True).parameters.values()
            if each.kind is not each.VAR_KEYWORD
        ]
        all_ = [*own, *parameters]
        command.__signature__ = inspect.Signature(all_)  # type: ignore[attr-defined]  # what typer reads
        command.__annotations__ = {each.name: each.annotation for each in all_}
        return command

    return decorate


def flag_of(name: str) -> str:
    """The flag of a setting that takes a value."""
    return DATABASE_FLAGS[0] if name == "database_url" else f"--{name.replace('_', '-')}"


def _parameter(field: msgspec.structs.FieldInfo) -> inspect.Parameter:
    name, default, description = field.name, field.default, get_args(field.type)[-1]
    help_ = f"{description} {PREFIX}{name.upper()}; default: {default if default != '' else 'empty'}."
    flags = DATABASE_FLAGS if name == "database_url" else (flag_of(name),)
    metavar = {int: "INTEGER", float: "FLOAT"}.get(type(default), "TEXT")
    annotation: Any = Annotated[str | None, typer.Option(*flags, help=help_, metavar=metavar)]
    if isinstance(default, bool):
        annotation = Annotated[bool | None, typer.Option(help=help_)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


database_options = setting_options("database_url", "database_password_file")
"""Gives a command that takes `**given` the options for the database that it opens itself."""
