"""`authz policy diff`: what changes for whom between two policies, each a folder or a version on a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from authz.cli.connection import DEFAULT_ADDRESS, Address, Database, connect
from authz.cli.output import print_json
from authz.cli.policy import FOUND_EXIT_CODE, Json
from authz.cli.policy_course import Course, read_course_file
from authz.cli.policy_report import Verbose, print_changes
from authz.cli.policy_versions import ACTIVE, DRAFT, version_files, version_number
from authz.domain.policy_changes import PolicyDiff


def diff(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(help="Policy folders, or with --course files: before, then after.", exists=True),
    ] = None,
    course: Course = "",
    before: Annotated[
        str, typer.Option("--from", help="In place of the first folder: `active`, a number, or `draft:NAME`.")
    ] = "",
    after: Annotated[str, typer.Option("--to", help="In place of the last folder. Default: `active`.")] = "",
    address: Address = DEFAULT_ADDRESS,
    database: Database = "",
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    """Show which roles gain and lose which actions, and when. Exit code: 0 no change, 1 changes.

    A folder alone is compared with the active version. With --course, so are the policies of a course, each
    together with the active one of the platform; before its first version, `active` is the platform's alone.
    """
    found = _compare(*_sides(folders or [], before, after), course, address, database)
    if as_json:
        print_json(found)
    else:
        print_changes(found, verbose=verbose)
    if found:
        raise typer.Exit(FOUND_EXIT_CODE)


def _sides(folders: list[Path], before: str, after: str) -> tuple[Path | str, Path | str]:
    """What to compare: folders, and versions for those that are not given."""
    given = bool(before) + bool(after) + len(folders)
    if not given:
        raise ValueError(
            "name two folders, a folder to compare with the active version, or `--from` and `--to`"
        )
    if given > 2:  # noqa: PLR2004  a comparison has two sides
        raise ValueError("compare two policies; each is a folder, or a version by `--from` or `--to`")
    left = iter(folders)
    first: Path | str = before or (next(left, ACTIVE) if after or len(folders) > 1 else ACTIVE)
    return first, after or next(left, ACTIVE)


def _compare(before: Path | str, after: Path | str, course: str, address: str, database: str) -> PolicyDiff:
    from authz.policy.diff import diff_files
    from authz.policy.load import compile_files, read_folder

    if isinstance(before, Path) and isinstance(after, Path) and not course:
        old, new = read_folder(before), read_folder(after)
        return diff_files(compile_files(old), compile_files(new), old, new)
    with connect(address, database) as client:
        sides = [
            (read_course_file(side) if course else read_folder(side))
            if isinstance(side, Path)
            else version_files(client, side, course)
            if side.startswith(DRAFT)
            else version_number(side)
            for side in (before, after)
        ]
        return client.policies.diff(*sides, course_id=course)
