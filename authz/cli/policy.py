"""`authz policy`: validate a policy folder and show its rules."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from authz.cli.output import print_rows

app = typer.Typer(help="Validate and show policies.", no_args_is_help=True)

Folder = Annotated[Path | None, typer.Argument(help="A policy folder. Default: the shipped policy.")]


@app.command("validate")
def validate(folder: Folder = None) -> None:
    """List every fault with file, line and column. Exit code: 0 without faults, else 2."""
    from authz.policy.load import load_policy, policy_directory

    policy = load_policy(folder or policy_directory())
    vocabulary = policy.vocabulary
    print(
        f"valid: version {policy.version}, {len(policy.rules)} rules, "
        f"{len(vocabulary.roles)} roles, {len(vocabulary.types)} types"
    )


@app.command("show")
def show(
    folder: Folder = None,
    role: Annotated[str, typer.Option(help="Only rules of this role.")] = "",
    type_name: Annotated[str, typer.Option("--type", help="Only rules of this type.")] = "",
) -> None:
    """Show the rules."""
    from authz.policy.load import load_policy, policy_directory

    rules = load_policy(folder or policy_directory()).rules
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
