"""`authz policy apply`, `export`, `history` and `rollback`: the versions on a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
import typer

from authz.cli.connection import DEFAULT_ADDRESS, Address, Database, connect
from authz.cli.options import Reason
from authz.cli.output import print_json, print_rows
from authz.cli.policy import Json
from authz.cli.policy_course import Course, read_course_file
from authz.cli.policy_report import Verbose, changes_from_active, print_changes, print_warnings
from authz.client import Client, Draft, PolicyTests, PublishedPolicy
from authz.domain.entities import PolicyVersion
from authz.domain.errors import PolicyError, PolicyWarning
from authz.domain.instants import format_instant
from authz.domain.kinds.fields import MAX_NUMBER
from authz.domain.policy_changes import PolicyDiff

ACTIVE, DRAFT = "active", "draft:"
Author = Annotated[str, typer.Option(help="Who makes the change. Default: the caller.")]
Expected = Annotated[int, typer.Option(help="The number that must be active, or nothing changes.")]
Number = Annotated[str, typer.Option("--version", help="`active`, a number, or `draft:NAME`.")]


def apply(
    folder: Annotated[Path, typer.Argument(help="A policy folder; with --course, a file.", exists=True)],
    course: Course = "",
    author: Author = "",
    reason: Reason = "",
    expected_active: Expected = 0,
    validate_only: Annotated[bool, typer.Option("--validate-only", help="Change nothing.")] = False,
    address: Address = DEFAULT_ADDRESS,
    database: Database = "",
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    """Make a folder the next version of the policy, active on every server. An equal one changes nothing.

    With --course, make a file the next version of the policy that the course has of its own.

    Exit code: 0 applied or unchanged, 2 refused, with every fault.
    """
    files = _read(folder, course)
    with connect(address, database, creates=True) as client:
        validated(client, files, course)
        changes = changes_from_active(client, files, course)
        published = client.policies.apply(
            files,
            author=author,
            reason=reason,
            expected_active=expected_active,
            validate_only=validate_only,
            course_id=course,
        )
    print_published(published, changes, verbose=verbose, as_json=as_json, validated_only=validate_only)


def _read(path: Path, course: str) -> dict[str, str]:
    from authz.policy.load import read_folder

    if course:
        return read_course_file(path)
    if not path.is_dir():
        raise ValueError(f"`{path}` is a file; name a policy folder, or with `--course` whose policy it is")
    return read_folder(path)


def validated(client: Client, files: dict[str, str], course: str = "") -> list[PolicyWarning]:
    """The warnings. Raises `PolicyError` with all faults: the error of a call has room for few only."""
    found = client.policies.validation(files, course_id=course)
    if found.faults:
        raise PolicyError(tuple(found.faults))
    return found.warnings


def rollback(
    number: Annotated[int, typer.Argument(min=1, help="The version to return to.")],
    course: Course = "",
    reason: Reason = "",
    author: Author = "",
    expected_active: Expected = 0,
    address: Address = DEFAULT_ADDRESS,
    database: Database = "",
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    """Make the next version from the files of an earlier one, and activate it."""
    with connect(address, database) as client:
        changes = changes_from_active(client, number, course)
        published = client.policies.roll_back(
            number, author=author, reason=reason, expected_active=expected_active, course_id=course
        )
    print_published(published, changes, verbose=verbose, as_json=as_json)


def history(
    course: Course = "", address: Address = DEFAULT_ADDRESS, database: Database = "", as_json: Json = False
) -> None:
    """List the versions, the active one first; before them, the drafts that are to be published later."""
    with connect(address, database) as client:
        active = client.policies.active_number(course_id=course)
        versions = sorted(client.policies.versions(course_id=course), key=lambda version: -version.number)
        planned = _planned(client, course)
    if as_json:
        for draft in planned:
            print_json({"number": None, "active": False, "draft": draft.id, "publication": draft.publication})
        for version in versions:
            print(msgspec.json.encode(_as_json(version) | {"active": version.number == active}).decode())
        return
    rows = [
        (f"{DRAFT}{draft.id}", f"planned for {format_instant(p.at)}", "", p.author, p.reason, "")
        for draft in planned
        if (p := draft.publication) is not None
    ]
    rows += (
        (
            str(version.number),
            ACTIVE if version.number == active else "",
            "" if version.created_at is None else format_instant(version.created_at),
            version.author,
            version.reason,
            version.digest[:12],
        )
        for version in versions
    )
    print_rows(("version", "state", "created at", "author", "reason", "digest"), rows)


def _planned(client: Client, course: str) -> list[Draft]:
    """The drafts that are to be published, the next one first."""
    drafts = client.policies.drafts.list(course_id=course)
    found = [(d.publication.at, d.id, d) for d in drafts if d.publication and not d.publication.error]
    return [draft for _, _, draft in sorted(found, key=lambda each: each[:2])]


def export(
    folder: Annotated[
        Path, typer.Argument(help="Where to write to: a new or empty folder; with --course, a new file.")
    ],
    course: Course = "",
    number: Number = ACTIVE,
    address: Address = DEFAULT_ADDRESS,
    database: Database = "",
) -> None:
    """Write the files of a version into a folder; with --course, the rows of the course into a file."""
    if course:
        _export_course(course, folder, number, address, database)
        return
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"`{folder}` is not empty; name a new folder, so that no file of yours is lost")
    with connect(address, database) as client:
        files = version_files(client, number)
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    print(f"wrote {len(files)} files to {folder}")


def _export_course(course: str, file: Path, number: str, address: str, database: str) -> None:
    from authz.policy.course import COURSE_FILE

    if file.exists():
        raise ValueError(f"`{file}` exists; name a new file, so that nothing of yours is lost")
    with connect(address, database) as client:
        files = version_files(client, number, course)
    file.write_bytes(files[COURSE_FILE].encode())
    print(f"wrote {file}")


def version_files(client: Client, text: str, course: str = "") -> dict[str, str]:
    """The files of an argument: `draft:NAME`, or a version."""
    if text.startswith(DRAFT):
        return client.policies.drafts.read(text.removeprefix(DRAFT), course_id=course).files
    return client.policies.files(version_number(text), course_id=course)


def version_number(text: str) -> int:
    """The number of an argument: 0 for the active version. Raises `ValueError` for what is none."""
    if text == ACTIVE:
        return 0
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= MAX_NUMBER):
        raise ValueError(
            f"`{text}` is no version; name `active`, `draft:NAME`, or one that `authz policy history` lists"
        )
    return int(text)


COMMANDS = (apply, export, history, rollback)


def print_published(
    published: PublishedPolicy,
    changes: PolicyDiff | None,
    *,
    verbose: bool,
    as_json: bool,
    validated_only: bool = False,
) -> None:
    """Print what a publish came to, what it changes, if that is known, and its warnings to standard error, if
    not as JSON."""
    number = published.number
    if not as_json:
        print_warnings(published.warnings, verbose=verbose)
    if as_json:
        outcome = {
            "active": None if published.active is None else _as_json(published.active),
            "changed": published.changed,
            "written_at": published.written_at,
            "changes": msgspec.to_builtins(changes),
            "tests": msgspec.to_builtins(published.tests),
            "warnings": [warning._asdict() for warning in published.warnings],
        }
        print(msgspec.json.encode(outcome).decode())
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


def _as_json(version: PolicyVersion) -> dict[str, object]:
    found = msgspec.to_builtins(version)
    return {name: found[name] for name in ("number", "digest", "author", "reason", "created_at")}
