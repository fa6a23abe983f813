"""The command line: `authz --help`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group

import authz
from authz.cli import (
    ERROR_EXIT_CODE,
    UNREAD_EXIT_CODE,
    access_lists,
    account,
    admin,
    audit,
    audit_proofs,
    audit_tree,
    backup,
    check,
    course,
    demo,
    directory_lists,
    doctor,
    explain,
    follow,
    imports,
    member,
    migrate,
    policy,
    policy_courses,
    policy_diff,
    policy_drafts,
    policy_preview,
    policy_prove,
    policy_shadow,
    policy_test,
    policy_versions,
    privacy,
    resource,
    serve,
    session,
    share,
    token,
    watch,
)
from authz.cli.errors import EXPECTED, code_of, details_of, message_of
from authz.cli.fault import drop, is_json_asked, print_fault, require_written
from authz.runtime.settings import Settings

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
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version.")
    ] = False,
) -> None:
    """Course-scoped access control.

    Options come after the command, also those that say how to reach the server and who calls:
    `authz check … --address host:port --token-file FILE`. `authz check --help` lists them.
    """


COMMANDS: dict[typer.Typer, tuple[Callable[..., None], ...]] = {
    app: (
        serve.serve,
        follow.follow,
        migrate.migrate,
        doctor.doctor,
        backup.backup,
        backup.restore,
        check.check,
        check.actions,
        explain.explain,
        access_lists.list_resources,
        access_lists.list_subjects,
        access_lists.plan,
        directory_lists.courses,
        directory_lists.sessions,
        directory_lists.memberships,
        directory_lists.resources,
        directory_lists.shares,
        directory_lists.accounts,
        watch.watch,
        demo.demo,
    ),
    audit.app: (
        audit_tree.keygen,
        audit_tree.checkpoint,
        audit_tree.verify,
        audit_proofs.newest_checkpoint,
        audit_proofs.prove_inclusion,
        audit_proofs.prove_consistency,
    ),
    policy.app: (
        policy_prove.prove,
        policy_diff.diff,
        policy_preview.preview,
        policy_test.test,
        *policy_versions.COMMANDS,
        policy_drafts.edit,
        policy_drafts.publish,
    ),
}
"""The commands of each group, besides those that its own module adds."""
for typer_app, commands in COMMANDS.items():
    for command in commands:
        typer_app.command()(command)
for group in (member, course, session, resource, share, account, token, admin, privacy, audit):
    app.add_typer(group.app, name=group.__name__.rpartition(".")[2])
app.add_typer(imports.app, name="import")
policy.app.add_typer(policy_courses.app, name="courses")
policy.app.add_typer(policy_drafts.app, name="draft")
policy.app.add_typer(policy_shadow.app, name="shadow")
app.add_typer(policy.app, name="policy")


_MAY_BE_EMPTY = {"purpose", "reason", *Settings.__struct_fields__} - {"database_url"}
"""The options whose empty value says something: a setting that is empty overrides its variable. Without a
database, `admin grant` would call a server."""


class _Command(TyperCommand):
    """Refuses an option of which a value would be lost without a word.

    Of one that is given twice, only the last value would count. One that is given empty, such as by a
    variable that a script has not set, would count as left out: `member remove … --role "$ROLE"` would remove
    every role.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        values, _, given = self.make_parser(ctx).parse_args(args=[*args])
        for param in self.params:
            flags = "/".join(param.opts + param.secondary_opts)
            if given.count(param) > 1 and not getattr(param, "multiple", False):
                ctx.fail(f"{flags} is given twice; give it once")
            if values.get(param.name) == "" and param in given and param.name not in _MAY_BE_EMPTY:
                ctx.fail(f"{flags} is empty; give a value, or leave it out")
        return super().parse_args(ctx, args)


def _commands_of(group: typer.Typer) -> Iterator[Any]:
    yield from group.registered_commands
    for info in group.registered_groups:
        if info.typer_instance is not None:
            yield from _commands_of(info.typer_instance)


for info in _commands_of(app):
    info.cls = _Command


_UsageError: Any = typer.BadParameter.__base__
"""Arguments that a command does not take."""
_HELP = "Usage: "
"""How the message begins of a group of commands that is given none: it is the group's help."""


@cache
def whole_command() -> TyperGroup:
    """The command line with all its commands. Making it takes longer than most commands do."""
    return get_group(app)


def _usage_message(error: Any) -> str:
    """The message for arguments that a command does not take: one line, which names the help if it is known
    which command this is."""
    text = " ".join(error.format_message().split()).removesuffix(".").replace(": Value error, ", ": ", 1)
    see = "" if error.ctx is None else f" (see `{error.ctx.command_path} --help`)"
    return f"{text[:1].lower()}{text[1:]}{see}"


def _end_unread() -> NoReturn:
    for stream in (sys.__stdout__, sys.__stderr__):  # in place of which typer has put its own
        if stream is not None:
            try:
                stream.flush()
            except OSError:
                drop(stream)
    sys.exit(UNREAD_EXIT_CODE)


def main() -> None:
    """Run a command. An error is one line on standard error and exit code 2.

    When nobody reads what it prints any more, as before `head`, a command ends without a word: by its own
    exit code if it had nothing left to do but to print.
    """
    try:
        code = whole_command()(standalone_mode=False) or 0
        with suppress(BrokenPipeError):
            require_written()
        sys.exit(code)
    except SystemExit as ended:
        if isinstance(ended.__context__, BrokenPipeError):  # for which typer has the exit code of a denial
            _end_unread()
        raise
    except _UsageError as error:
        if error.message.startswith(_HELP) and not is_json_asked():
            error.show()
        else:
            print_fault("INVALID_ARGUMENT", _usage_message(error), {})
    except typer.Abort as error:
        if error.__suppress_context__ and error.__cause__ is None:  # at a prompt, whose line has no end
            print(file=sys.stderr)
        print_fault("CANCELLED", "aborted", {})
        sys.exit(1)
    except EXPECTED as error:
        print_fault(code_of(error), message_of(error), details_of(error))
        with suppress(OSError):
            require_written()
    sys.exit(ERROR_EXIT_CODE)
