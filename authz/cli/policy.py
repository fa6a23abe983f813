"""`authz policy`: validate a policy folder, or a version on a server, and show its rules."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from authz.cli import ERROR_EXIT_CODE
from authz.cli.connection import DEFAULT_ADDRESS, Address, Database, connect
from authz.cli.output import print_json, print_rows
from authz.cli.policy_course import Course, load_in_course, read_course_file
from authz.cli.policy_report import Verbose, counted, print_warnings
from authz.domain.errors import PolicyError, PolicyWarning

app = typer.Typer(help="Validate, compare, prove, test, publish and revert policies.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
FOUND_EXIT_CODE = 1
"""A command that looks for something has found it: a warning, a broken invariant, a failed test."""
Version = Annotated[
    str, typer.Option("--version", help="In place of a folder: `active`, a number, or `draft:NAME`.")
]
Folder = Annotated[Path | None, typer.Argument(help="A policy folder. Default: the shipped policy.")]


def policy_files(folder: Path | None, version: str, address: str, database: str) -> dict[str, str]:
    """The files of the folder of the arguments, or of a version on a server."""
    from authz.cli.policy_versions import version_files
    from authz.policy.load import policy_directory, read_folder

    if not version:
        return read_folder(folder or policy_directory())
    if folder is not None:
        raise ValueError("name a folder or `--version`, not both")
    with connect(address, database) as client:
        return version_files(client, version)


def named(folder: Path | None, version: str, course: str = "") -> str:
    """What the arguments of a command name."""
    from authz.policy.load import policy_directory

    if course:
        return f"course `{course}` in `{folder}`" if folder else f"course `{course}`"
    return f"the policy in `{folder or policy_directory()}`" if not version else f"version `{version}`"


@app.command("validate")
def validate(
    folder: Folder = None,
    course: Course = "",
    version: Version = "",
    address: Address = DEFAULT_ADDRESS,
    database: Database = "",
    strict: Annotated[bool, typer.Option("--strict", help="Fail on warnings, too.")] = False,
    with_directory: Annotated[
        bool, typer.Option("--with-directory", help="Also hold it against the directory of the server.")
    ] = False,
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    """List every fault and warning. Exit code: 0 valid, 1 with warnings and --strict, 2 with faults.

    With --course, those of the policy of a course: of a file, or of a version on the server.
    """
    source_name = named(folder, version, course)
    try:
        place = (folder, course, version, address, database)
        policy_version, numbers, warnings = _linted(*place)
        warnings = _in_directory(*place) if with_directory else warnings
    except PolicyError as error:
        error.locate(source_name)
        if as_json:
            faults = [fault._asdict() for fault in error.faults]
            print_json({"valid": False, "faults": faults, "warnings": []})
            raise typer.Exit(ERROR_EXIT_CODE) from None
        raise
    if as_json:
        listed = [warning._asdict() for warning in warnings]
        print_json({"valid": True, "version": policy_version, "faults": [], "warnings": listed})
    else:
        print_warnings(warnings, verbose=verbose, file=sys.stdout)
        counts = [counted(number, noun) for noun, number in (*numbers.items(), ("warning", len(warnings)))]
        print(f"valid: version {policy_version}, {', '.join(counts)}; {source_name}")
    if strict and warnings:
        raise typer.Exit(FOUND_EXIT_CODE)


def _linted(
    folder: Path | None, course: str, version: str, address: str, database: str
) -> tuple[str, dict[str, int], list[PolicyWarning]]:
    """The version of a policy, how many of each noun it has, and its warnings. Raises `PolicyError` with
    every fault."""
    from authz.policy.lint import lint, lint_course
    from authz.policy.load import compile_files

    if course:
        found = load_in_course(course, folder, version, address, database)
        warnings = [*lint_course(found.policy, found.platform)]
        return found.policy.version, {"rule": len(found.own)}, warnings
    policy = compile_files(policy_files(folder, version, address, database))
    names = policy.vocabulary
    numbers = {"rule": len(policy.rules), "role": len(names.roles), "type": len(names.types)}
    return policy.version, numbers, list(lint(policy))


def _in_directory(
    folder: Path | None, course: str, version: str, address: str, database: str
) -> list[PolicyWarning]:
    """The warnings of the server. Raises `PolicyError`, for a broken invariant, too."""
    from authz.cli.policy_versions import ACTIVE, validated, version_files

    if course:
        with connect(address, database) as client:
            named_version = version or ACTIVE
            given = read_course_file(folder) if folder else version_files(client, named_version, course)
            return validated(client, given, course)
    files = policy_files(folder, version, address, database)
    with connect(address, database) as client:
        return validated(client, files)


@app.command("format")
def format_file(
    file: Annotated[Path, typer.Argument(help="A CSV file of a spreadsheet or of another tool.")],
) -> None:
    """Print a policy file as this project writes it: the same rows and comments, with commas, unpadded."""
    from authz.policy.format import format_policy

    print(format_policy(file.read_bytes(), file=file.name), end="")


@app.command("show")
def show(
    folder: Folder = None,
    course: Course = "",
    version: Version = "",
    address: Address = DEFAULT_ADDRESS,
    database: Database = "",
    role: Annotated[str, typer.Option(help="Only rules of this role.")] = "",
    type_name: Annotated[str, typer.Option("--type", help="Only rules of this type.")] = "",
    as_json: Json = False,
) -> None:
    """Show the rules; with --course, those that the course has of its own. With --json, a rule a line."""
    from authz.policy.load import compile_files

    if course:
        rules = load_in_course(course, folder, version, address, database).own
    else:
        rules = compile_files(policy_files(folder, version, address, database)).rules
    columns = ("role", "scope", "type", "action", "condition", "effect", "source")
    shown = [rule for rule in rules if role in ("", rule.role) and type_name in ("", rule.type)]
    if as_json:
        for rule in shown:
            print_json(rule)
        return
    if sys.stderr.isatty():
        print(named(folder, version, course), file=sys.stderr)
    print_rows(columns, [tuple(getattr(rule, name) for name in columns) for rule in shown])


@app.command("copy-role")
def copy(
    original: Annotated[str, typer.Argument(help="The role to copy.")],
    name: Annotated[str, typer.Argument(help="The new role.")],
    folder: Folder = None,
    rank: Annotated[int | None, typer.Option(help="Its rank. Default: that of the original.")] = None,
) -> None:
    """Print the rows of a role that starts as a copy of another, to append to default.csv."""
    from authz.policy.copy_role import copy_role
    from authz.policy.load import load_policy, policy_directory

    print(copy_role(load_policy(folder or policy_directory()), original, name, rank), end="")
