"""`authz policy apply`, `export`, `history` and `rollback`: the versions on a server."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from authz.cli.command import Context, on_server
from authz.cli.options import DRAFT, Author, PolicyCourse, Verbose, Version, WeakenInvariants
from authz.cli.output import cell_text, print_json
from authz.cli.policy_base import has_base, require_base, write_base
from authz.cli.policy_report import changes_by, print_changes, print_warnings
from authz.cli.policy_source import (
    ACTIVE,
    SHOWN_DIGEST,
    PolicyFiles,
    active_number,
    every_fault,
    read_policy,
    read_source,
    read_version,
)
from authz.client import Client, Draft, DraftPublication, PolicyTests, PublishedPolicy
from authz.domain.entities import PolicyVersion
from authz.domain.files import files_text, same_files
from authz.domain.instants import format_instant
from authz.domain.policy_changes import PolicyDiff

_WEAKENS = "weakens invariants"
_NO_SOURCE = (
    "name the one to apply; for a version use `authz policy rollback`, and for a draft `authz policy publish`"
)
_FIELDS = ("number", "digest", "author", "reason", "created_at", "weakens_invariants")
Expected = Annotated[
    int | None,
    typer.Option(
        "--expected-active",
        min=0,
        help="The number that must be active, or nothing changes; 0 for none, before the first of a course.",
    ),
]


@on_server(writes=True, creates=True)
def apply(
    context: Context,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A policy folder; with --course, a file.")],
    course: PolicyCourse = None,
    author: Author = "",
    expected_active: Expected = None,
    validate_only: Annotated[bool, typer.Option("--validate-only", help="Change nothing.")] = False,
    weaken_invariants: WeakenInvariants = False,
    verbose: Verbose = False,
) -> None:
    """Make a folder the next version of the policy, active on every server. Equal files change nothing.

    With --course, make a file the next version of the policy that the course has of its own.

    Refuses what `authz policy export` wrote if another version has become active since, unless
    --expected-active names that version.

    Exit code: 0 applied or unchanged, 2 refused, with every fault.
    """
    files = read_source(folder, course, remedy=_NO_SOURCE)
    if has_base(folder) and expected_active is None:
        expected_active = based_on_active(context.client, folder, files, course)
    with every_fault(context.client, files, course):
        published = context.client.policies.apply(
            files,
            author=author,
            reason=context.reason,
            expected_active=expected_active,
            validate_only=validate_only,
            course_id=course,
            weaken_invariants=weaken_invariants,
        )
    if has_base(folder) and not validate_only:
        # Before anything is printed: who reads the output may stop reading, such as `head -1`.
        update_base(folder, PolicyFiles(files, "", published.number))
    changes = changes_by(context.client, published, course, files if validate_only else None)
    print_published(context, published, changes, verbose=verbose, validated_only=validate_only)


def update_base(folder: Path, source: PolicyFiles) -> None:
    """State in what was exported, and is active now, which version it is."""
    try:
        write_base(folder, source)
    except OSError as error:  # the folder may be read-only, and the version is active
        print(f"note: `{folder}` does not state this version: {error.strerror}", file=sys.stderr)


def based_on_active(client: Client, exported: Path, files: dict[str, str], course: str | None) -> int:
    """The number of the active version. Raises as `require_base`, unless it has the same files."""
    number = active_number(client, course)
    active = read_version(client, str(number), course) if number else None
    if active is None or not same_files(files_text(files), files_text(active.files)):
        require_base(exported, active)
    return number


@on_server(writes=True)
def rollback(
    context: Context,
    number: Annotated[int, typer.Argument(metavar="NUMBER", min=1, help="The version to return to.")],
    course: PolicyCourse = None,
    author: Author = "",
    expected_active: Expected = None,
    weaken_invariants: WeakenInvariants = False,
    verbose: Verbose = False,
) -> None:
    """Make the next version from the files of an earlier one, and activate it."""
    published = context.client.policies.roll_back(
        number,
        author=author,
        reason=context.reason,
        expected_active=expected_active,
        course_id=course,
        weaken_invariants=weaken_invariants,
    )
    changes = changes_by(context.client, published, course)
    print_published(context, published, changes, verbose=verbose)


@on_server()
def history(context: Context, course: PolicyCourse = None) -> None:
    """List the versions, the active one first; before them, the drafts that are to be published later."""
    policies = context.client.policies
    active = active_number(context.client, course)
    if not active:
        note = f"course `{course}` has no policy of its own: the platform's decides there"
        print(f"note: {note}", file=sys.stderr)
    versions = sorted(policies.versions(course_id=course), key=lambda version: -version.number)
    planned = [
        dict.fromkeys(_FIELDS) | {"active": False, "draft": draft.id, "publication": draft.publication}
        for draft in _planned(context.client, course)
    ]
    published = {"draft": None, "publication": None}  # so that every line has the same fields
    listed = [_as_json(each) | {"active": each.number == active} | published for each in versions]
    headings = ("version", "state", "created at", "author", "reason", "digest")
    context.show(headings, [*planned, *listed], _cells)


def _cells(item: dict[str, Any]) -> Sequence[str]:
    """The row of a version, or of a draft that is to become one."""
    if item["number"] is None:
        plan: DraftPublication = item["publication"]
        when = f"planned for {format_instant(plan.at)}"
        return (f"{DRAFT}{item['draft']}", when, "", plan.author, plan.reason, "")
    states = ([ACTIVE] if item["active"] else []) + ([_WEAKENS] if item["weakens_invariants"] else [])
    number, state = str(item["number"]), ", ".join(states)
    created_at = cell_text(item["created_at"], "created_at")
    return (number, state, created_at, item["author"], item["reason"], item["digest"][:SHOWN_DIGEST])


def _planned(client: Client, course: str | None) -> list[Draft]:
    """The drafts that are to be published, the next one first."""
    drafts = client.policies.drafts.list(course_id=course)
    found = [(d.publication.at, d.id, d) for d in drafts if d.publication and not d.publication.error]
    return [draft for _, _, draft in sorted(found, key=lambda each: each[:2])]


@on_server(prints_json=False)
def export(
    context: Context,
    folder: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="A new or empty folder; with --course, a new file."),
    ],
    course: PolicyCourse = None,
    version: Version = None,
) -> None:
    """Write the files of a version into a folder; with --course, the rows of the course into a file."""
    if course:
        _export_course(context, course, folder, version)
        return
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"`{folder}` is not empty; name a new folder, so that no file of yours is lost")
    source = read_policy(context, None, version)
    for name, text in source.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    if source.number:
        write_base(folder, source)
    print(f"wrote {len(source.files)} files to {folder}")


def _export_course(context: Context, course: str, file: Path, version: str | None) -> None:
    from authz.policy.course import COURSE_FILE

    if file.exists():
        raise ValueError(f"`{file}` exists; name a new file, so that nothing of yours is lost")
    source = read_policy(context, None, version, course)
    file.write_bytes(source.files[COURSE_FILE].encode())
    if source.number:
        write_base(file, source)
    print(f"wrote {file}")


COMMANDS = (apply, export, history, rollback)


def print_published(
    context: Context,
    published: PublishedPolicy,
    changes: PolicyDiff | None,
    *,
    verbose: bool,
    validated_only: bool = False,
) -> None:
    """Print what a publish came to, what it changes, if that is known, and its warnings to standard error, if
    not as JSON."""
    number = published.number
    if not context.as_json:
        print_warnings(published.warnings, verbose=verbose)
    if context.as_json:
        outcome = {
            "active": None if published.active is None else _as_json(published.active),
            "changed": published.changed,
            "written_at": published.written_at,
            "changes": changes,
            "tests": published.tests,
            "warnings": published.warnings,
        }
        print_json(outcome)
    elif not published.changed:
        print(f"unchanged: version {number} is active and has the same files")
    else:
        if validated_only:
            print(f"valid: it differs from version {number}, which is active" if number else "valid")
        else:
            print(f"version {number} is active")
        if changes is not None:
            print_changes(changes, verbose=verbose)
        if published.tests is not None:
            print(_coverage(published.tests))


def _coverage(tests: PolicyTests) -> str:
    if not tests.passed:
        return "no test: write some, or nothing says who should get what (`authz policy test`)"
    return (
        f"tests: {tests.passed} passed; no test touches {tests.untouched_rules} of {tests.rules} rules and"
        f" {tests.untouched_cells} of {tests.cells} cells"
    )


def _as_json(version: PolicyVersion) -> dict[str, Any]:
    return {name: getattr(version, name) for name in _FIELDS}
