"""`authz policy draft`, `edit` and `publish`: change a policy on a server step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from authz.cli.connection import DEFAULT_ADDRESS, Address, Database, connect
from authz.cli.options import Reason
from authz.cli.output import print_json, print_rows
from authz.cli.policy import Json
from authz.cli.policy_report import Verbose, changes_from_active, print_changes, print_warnings
from authz.cli.policy_versions import Author, print_published, validated
from authz.client import Client, Draft, DraftPublication
from authz.domain.drafts import AddRow, DeleteFile, Edit, PutFile, RemoveRow, SetCell
from authz.domain.errors import PolicyWarning
from authz.domain.instants import format_instant, parse_instant
from authz.domain.policy_changes import PolicyDiff

app = typer.Typer(help="Make, list and delete drafts of policies.", no_args_is_help=True)

OfCourse = Annotated[str, typer.Option("--course", help="The course, for a draft of its own policy.")]

Etag = Annotated[str, typer.Option(help="Refuse unless the draft has this etag.")]
Name = Annotated[str, typer.Argument(metavar="DRAFT", help="The name of the draft.")]


@app.command("create")
def create(
    name: Name,
    base: Annotated[int, typer.Option("--from", help="The version to copy. Default: the active one.")] = 0,
    author: Author = "",
    course: OfCourse = "",
    address: Address = DEFAULT_ADDRESS,
    database: Database = "",
) -> None:
    """Make a draft: a copy of a version, by which nothing decides."""
    with connect(address, database) as client:
        draft = client.policies.drafts.create(name, base=base, author=author, course_id=course)
    copied = f"a copy of version {draft.base_number}" if draft.base_number else "without rules"
    print(f"draft `{draft.id}` is {copied}")


@app.command("list")
def list_drafts(
    course: OfCourse = "",
    address: Address = DEFAULT_ADDRESS,
    database: Database = "",
    as_json: Json = False,
) -> None:
    """List the drafts of the platform's policy, or of the policy of a course."""
    with connect(address, database) as client:
        drafts = client.policies.drafts.list(course_id=course)
    if as_json:
        for draft in drafts:
            shown = ("id", "etag", "base_number", "author", "publication")
            print_json({name: getattr(draft, name) for name in shown})
        return
    rows = (
        (
            d.id,
            str(d.base_number),
            d.author,
            "" if d.edited_at is None else format_instant(d.edited_at),
            "" if d.publication is None else _planned(d.publication),
        )
        for d in drafts
    )
    print_rows(("draft", "from version", "author", "edited at", "to be published"), rows)


def _planned(publication: DraftPublication) -> str:
    at = format_instant(publication.at)
    return f"not at {at}: {publication.error}" if publication.error else at


@app.command("cancel")
def cancel(
    name: Name, course: OfCourse = "", address: Address = DEFAULT_ADDRESS, database: Database = ""
) -> None:
    """Do not publish a draft at the time that `publish --at` has named. It stays a draft."""
    with connect(address, database) as client:
        drafts = client.policies.drafts
        drafts.cancel(drafts.read(name, course_id=course))
    print(f"draft `{name}` is not published")


@app.command("delete")
def delete(
    name: Name, course: OfCourse = "", address: Address = DEFAULT_ADDRESS, database: Database = ""
) -> None:
    """Delete a draft."""
    with connect(address, database) as client:
        drafts = client.policies.drafts
        drafts.delete(drafts.read(name, course_id=course))
    print(f"draft `{name}` is deleted")


def edit(
    name: Name,
    cell: Annotated[
        tuple[str, str, str, str] | None,
        typer.Option(
            "--set",
            metavar="ROLE TYPE ACTION WHEN",
            help="Set a cell: always, never, or facts joined by &, alternatives by ;.",
        ),
    ] = None,
    remove: Annotated[list[str] | None, typer.Option(help="Remove a row. May be repeated.")] = None,
    add: Annotated[list[str] | None, typer.Option(help="Add a row. May be repeated.")] = None,
    put: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FILE", help="Add or replace a file. May be repeated.")
    ] = None,
    delete_file: Annotated[list[str] | None, typer.Option(help="Delete a file. May be repeated.")] = None,
    rebase: Annotated[
        bool, typer.Option("--rebase", help="First move the draft onto the active version.")
    ] = False,
    etag: Etag = "",
    course: OfCourse = "",
    address: Address = DEFAULT_ADDRESS,
    database: Database = "",
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    """Edit a draft, and show what it changes. Exit code: 0 edited, 2 refused."""
    edits: list[Edit] = [] if cell is None else [_cell(*cell)]
    edits += [*map(RemoveRow, remove or ()), *map(AddRow, add or ())]
    edits += [_file(given) for given in put or ()]
    edits += [DeleteFile(each) for each in delete_file or ()]
    if not edits and not rebase:
        raise ValueError("nothing to edit; use --set, --add, --remove, --put, --delete-file or --rebase")
    with connect(address, database) as client:
        drafts = client.policies.drafts
        edited = drafts.edit(_at(drafts.read(name, course_id=course), etag), edits, rebase=rebase)
        changes = None if edited.faults else _changes(client, name, course)
    _print(edited, changes, verbose=verbose, as_json=as_json)


def _changes(client: Client, name: str, course: str) -> PolicyDiff:
    """What a draft changes in the version that it was made from; of a course without one, in the platform's
    policy alone."""
    from authz.policy.course import COURSE_FILE

    draft = client.policies.drafts.read(name, course_id=course)
    return client.policies.diff(draft.base_number or {COURSE_FILE: ""}, draft.files, course_id=course)


def _print(edited: Draft, changes: PolicyDiff | None, *, verbose: bool, as_json: bool) -> None:
    if as_json:
        shown = {each: getattr(edited, each) for each in ("id", "etag", "base_number")}
        faults = [fault._asdict() for fault in edited.faults]
        print_json(shown | {"faults": faults, "changes": changes})
    elif changes is None:
        for fault in edited.faults:
            print(f"fault: {fault}")
        print(
            f"draft `{edited.id}` is edited; it has faults, and cannot be published until they are corrected"
        )
    else:
        print_changes(changes, verbose=verbose)
        base = f"to version {edited.base_number}" if edited.base_number else "to the platform's policy alone"
        print(f"draft `{edited.id}` is edited; the changes are those {base}")


def _at(draft: Draft, etag: str) -> Draft:
    """The draft, if it has the etag that was asked for, if any."""
    if etag not in ("", draft.etag):
        raise ValueError(f"draft `{draft.id}` has been edited since: its etag is {draft.etag}, not {etag}")
    return draft


def _cell(role: str, type_name: str, action: str, when: str) -> SetCell:
    conditions = {"always": ("",), "never": ()}.get(when)
    if conditions is None:
        conditions = tuple(part.strip() for part in when.removeprefix("when ").split(";"))
        if not all(conditions):
            raise ValueError(f"`{when}` has an empty alternative; say `always`, `never`, or name facts")
    return SetCell(role, type_name, action, conditions)


def _file(given: str) -> PutFile:
    name, is_pair, path = given.partition("=")
    if not is_pair:
        raise ValueError(f"`{given}` is no NAME=FILE, such as `tests/mine.toml=mine.toml`")
    return PutFile(name, Path(path).read_bytes().decode())


def publish(
    name: Name,
    reason: Reason = "",
    author: Author = "",
    etag: Etag = "",
    at: Annotated[
        str, typer.Option(help="When, such as 2026-12-01T06:00:00Z. Default: now. Servers do it then.")
    ] = "",
    course: OfCourse = "",
    address: Address = DEFAULT_ADDRESS,
    database: Database = "",
    verbose: Verbose = False,
    as_json: Json = False,
) -> None:
    """Make a draft the next version of the policy, active on every server, and delete the draft.

    Exit code: 0 published, to be published or unchanged, 2 refused, with every fault.
    """
    publish_at = parse_instant(at, field="--at") if at else None
    with connect(address, database) as client:
        draft = _at(client.policies.drafts.read(name, course_id=course), etag)
        warnings = validated(client, draft.files, course)
        changes = changes_from_active(client, draft.files, course)
        if publish_at is None:
            published = client.policies.publish(draft, author=author, reason=reason)
        else:
            planned = client.policies.drafts.schedule(draft, publish_at, author=author, reason=reason)
    if publish_at is None:
        print_published(published, changes, verbose=verbose, as_json=as_json)
    else:
        _print_planned(planned, warnings, changes, verbose=verbose, as_json=as_json)


def _print_planned(
    draft: Draft, warnings: list[PolicyWarning], changes: PolicyDiff | None, *, verbose: bool, as_json: bool
) -> None:
    if as_json:
        shown = {"id": draft.id, "etag": draft.etag, "publication": draft.publication, "changes": changes}
        print_json(shown | {"warnings": [warning._asdict() for warning in warnings]})
        return
    print_warnings(warnings, verbose=verbose)
    assert draft.publication is not None  # noqa: S101  that is what was asked for; narrows the type
    print(f"draft `{draft.id}` is to be published at {format_instant(draft.publication.at)}")
    if changes is not None:
        print_changes(changes, verbose=verbose)
