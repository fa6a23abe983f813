"""`authz policy diff`: what changes for whom between two policies, each a folder or a version on a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from authz.cli.command import Context, on_server
from authz.cli.options import PolicyCourse, Verbose
from authz.cli.output import FOUND_EXIT_CODE, print_json
from authz.cli.policy_report import print_changes
from authz.cli.policy_source import ACTIVE, read_source, version_or_files
from authz.domain.policy_changes import PolicyDiff


@on_server()
def diff(
    context: Context,
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FOLDER",
            help="Policy folders, or with --course files: before, then after.",
        ),
    ] = None,
    course: PolicyCourse = None,
    before: Annotated[
        str | None,
        typer.Option("--old", help="In place of the first folder: `active`, a number, or `draft:NAME`."),
    ] = None,
    after: Annotated[
        str | None, typer.Option("--new", help="In place of the last folder. Default: `active`.")
    ] = None,
    verbose: Verbose = False,
) -> None:
    """Show which roles gain and lose which actions, and when. Exit code: 0 no change, 1 changes.

    A folder alone is compared with the active version. With --course, so are the policies of a course, each
    together with the active one of the platform; before its first version, `active` is the platform's alone.
    """
    found = _compare(context, *_sides(folders or [], before, after), course)
    if context.as_json:
        print_json(found)
    else:
        print_changes(found, verbose=verbose)
    if found:
        raise typer.Exit(FOUND_EXIT_CODE)


def _sides(folders: list[Path], before: str | None, after: str | None) -> tuple[Path | str, Path | str]:
    """What to compare: folders, and versions for those that are not given."""
    sides = [side for side in (before, *folders, after) if side is not None]
    if not sides:
        raise ValueError(
            "name two folders, a folder to compare with the active version, or `--old` and `--new`"
        )
    if len(sides) > 2:  # noqa: PLR2004  a comparison has two sides
        raise ValueError("compare two policies; each is a folder, or a version by `--old` or `--new`")
    if len(sides) == 1:
        sides.insert(0 if before is None else 1, ACTIVE)
    return sides[0], sides[1]


def _compare(context: Context, before: Path | str, after: Path | str, course: str | None) -> PolicyDiff:
    from authz.policy.diff import diff_files
    from authz.policy.load import compile_files

    if isinstance(before, Path) and isinstance(after, Path) and not course:
        old, new = read_source(before), read_source(after)
        return diff_files(compile_files(old), compile_files(new), old, new)
    sides = [
        read_source(side, course)
        if isinstance(side, Path)
        else version_or_files(context.client, side, course)
        for side in (before, after)
    ]
    return context.client.policies.diff(*sides, course_id=course)
