"""The command line: `authz --help`."""

from __future__ import annotations

import sys
from typing import Annotated, NoReturn

import grpc
import typer

import authz
from authz.cli import ERROR_EXIT_CODE, check, demo, follow, imports, migrate, policy, serve, watch
from authz.cli import list as listing
from authz.cli.connection import tls_var
from authz.client.errors import CallError
from authz.domain.errors import AuthzError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"authz {authz.__version__}")
        raise typer.Exit


@app.callback()
def options(
    tls_ca_file: Annotated[str, typer.Option(help="PEM of the authority of the server's certificate.")] = "",
    tls_certificate_file: Annotated[
        str, typer.Option(help="PEM chain of the client certificate, if the server requires one.")
    ] = "",
    tls_key_file: Annotated[str, typer.Option(help="Its PEM key.")] = "",
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """Course-scoped access control.

    Options before the command are for a server with TLS.
    """
    tls_var.set(
        {
            "tls_ca_file": tls_ca_file,
            "tls_certificate_file": tls_certificate_file,
            "tls_key_file": tls_key_file,
        }
    )


for command in (
    serve.serve,
    follow.follow,
    migrate.migrate,
    check.check,
    check.actions,
    listing.courses,
    listing.sessions,
    listing.memberships,
    listing.resources,
    listing.accounts,
    watch.watch,
    demo.demo,
):
    app.command()(command)
app.add_typer(imports.app, name="import")
app.add_typer(policy.app, name="policy")


def main() -> None:
    """Run a command. An error is one message on standard error and exit code 2."""
    try:
        app()
    except CallError as error:
        _fail(_unreached(error) if not error.reason else error.message)
    except AuthzError as error:
        _fail(" ".join([error.message, *(f"({note})" for note in getattr(error, "__notes__", ()))]))
    except ValueError as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"cannot use `{error.filename}`: {error.strerror}" if error.filename else str(error))


def _unreached(error: CallError) -> str:
    """The message for a call that no server answered."""
    if error.code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return "the server did not answer in time; try again, or name another with `--address`"
    if error.code is grpc.StatusCode.UNAVAILABLE:
        return f"no server answers: {error.message}; run `authz serve`, or set `--address` or `--database`"
    return error.message


def _fail(message: str) -> NoReturn:
    print(f"error: {message}", file=sys.stderr)
    sys.exit(ERROR_EXIT_CODE)
