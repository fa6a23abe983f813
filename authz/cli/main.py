"""The command line: `authz --help`."""

from __future__ import annotations

import sys

import typer

from authz.cli import check, demo, imports, look, migrate, policy, serve
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
    demo.demo,
):
    app.command()(command)
app.add_typer(imports.app, name="import")
app.add_typer(policy.app, name="policy")


def main() -> None:
    """Run a command. What goes wrong is one message on standard error and exit code 2."""
    try:
        app()
    except (AuthzError, CallError) as error:
        print(f"error: {error.message}", file=sys.stderr)
        sys.exit(ERROR_EXIT_CODE)
