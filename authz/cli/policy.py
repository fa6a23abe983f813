"""`authz policy`: validate a policy folder and show its rules."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from authz.cli import ERROR_EXIT_CODE
from authz.cli.output import print_json, print_rows
from authz.domain.errors import PolicyError

app = typer.Typer(help="Validate and show policies.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
FOUND_EXIT_CODE = 1
"""A command that looks for something has found it: a warning, a broken invariant, a failed test."""
Folder = Annotated[
    Path | None,
    typer.Argument(envvar="AUTHZ_POLICY_DIR", help="A policy folder. Default: the shipped policy."),
]


@app.command("validate")
def validate(
    folder: Folder = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on warnings, too.")] = False,
    as_json: Json = False,
) -> None:
    """List every fault and warning. Exit code: 0 valid, 1 with warnings and --strict, 2 with faults."""
    from authz.policy.lint import lint
    from authz.policy.load import load_policy, policy_directory

    folder = folder or policy_directory()
    try:
        policy = load_policy(folder)
    except PolicyError as error:
        error.add_note(f"the policy in `{folder}`")
        if as_json:
            print_json(
                {"valid": False, "faults": [fault._asdict() for fault in error.faults], "warnings": []}
            )
            raise typer.Exit(ERROR_EXIT_CODE) from None
        raise
    warnings = lint(policy)
    if as_json:
        listed = [warning._asdict() for warning in warnings]
        print_json({"valid": True, "version": policy.version, "faults": [], "warnings": listed})
    else:
        for warning in warnings:
            print(f"warning: {warning}")
        vocabulary = policy.vocabulary
        print(
            f"valid: version {policy.version}, {len(policy.rules)} rules, "
            f"{len(vocabulary.roles)} roles, {len(vocabulary.types)} types, {len(warnings)} warnings; "
            f"the policy in `{folder}`"
        )
    if strict and warnings:
        raise typer.Exit(FOUND_EXIT_CODE)


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
    role: Annotated[str, typer.Option(help="Only rules of this role.")] = "",
    type_name: Annotated[str, typer.Option("--type", help="Only rules of this type.")] = "",
) -> None:
    """Show the rules."""
    from authz.policy.load import load_policy, policy_directory

    folder = folder or policy_directory()
    rules = load_policy(folder).rules
    print(f"the policy in `{folder}`", file=sys.stderr)
    print_rows(
        ("role", "scope", "type", "action", "condition", "effect", "source"),
        [
            (r.role, r.scope, r.type, r.action, r.condition, r.effect, r.source)
            for r in rules
            if role in ("", r.role) and type_name in ("", r.type)
        ],
    )


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
