"""`authz policy diff`: what changes for whom between two policy folders."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from authz.cli.output import print_json
from authz.cli.policy import FOUND_EXIT_CODE, Json


def diff(
    before: Annotated[Path, typer.Argument(help="A policy folder.")],
    after: Annotated[Path, typer.Argument(help="The folder to compare it with.")],
    as_json: Json = False,
) -> None:
    """Show which roles gain and lose which actions, and when. Exit code: 0 no change, 1 changes."""
    from authz.policy.diff import diff as diff_policies
    from authz.policy.diff import sentences
    from authz.policy.load import load_policy

    found = diff_policies(load_policy(before), load_policy(after))
    if as_json:
        print_json(found)
    else:
        for line in (*found.declarations, *(line for change in found.cells for line in sentences(change))):
            print(line)
        if not found:
            print("nothing changes: the two policies decide everything alike")
    if found:
        raise typer.Exit(FOUND_EXIT_CODE)
