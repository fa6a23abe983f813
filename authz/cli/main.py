"""The command line: `authz --help`."""

from __future__ import annotations

import sys
from typing import NoReturn

import grpc
import typer

from authz.cli import check, demo, imports, look, migrate, policy, serve, watch
from authz.client.errors import CallError
from authz.domain.errors import AuthzError

ERROR_EXIT_CODE = 2

app = typer.Typer(
    help="Course-scoped access control.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command in (
    serve.serve,
    migrate.migrate,
    check.check,
    check.actions,
    look.courses,
    look.sessions,
    look.memberships,
    look.resources,
    watch.watch,
    demo.demo,
):
    app.command()(command)
app.add_typer(imports.app, name="import")
app.add_typer(policy.app, name="policy")


def main() -> None:
    """Run a command. What goes wrong is one message on standard error and exit code 2."""
    try:
        app()
    except CallError as error:
        _fail(_unreached(error) if not error.reason else error.message)
    except AuthzError as error:
        _fail(error.message)
    except OSError as error:
        _fail(f"cannot use `{error.filename}`: {error.strerror}" if error.filename else str(error))


def _unreached(error: CallError) -> str:
    """The message for a call that no service answered."""
    if error.code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return "the service did not answer in time; try again, or name another with `--address`"
    if error.code is grpc.StatusCode.UNAVAILABLE:
        return f"no service: {error.message}; run `authz serve`, or name `--address` or `--database`"
    return error.message


def _fail(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(ERROR_EXIT_CODE)
