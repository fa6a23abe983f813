"""`authz policy draft`, `edit` and `publish`: change a policy on a server step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from authz.cli.command import Context, on_server
from authz.cli.options import TIME, Author, DraftName, PolicyCourse, Verbose, WeakenInvariants, parsed_option
from authz.cli.output import cell_text, print_json
from authz.cli.policy_report import changes_by, changes_from_active, print_changes, print_warnings
from authz.cli.policy_source import every_fault, read_text, validated
from authz.cli.policy_versions import print_published
from authz.client import Client, Draft, DraftPublication
from authz.domain.drafts import AddRow, DeleteFile, Edit, PutFile, RemoveRow, SetCell
from authz.domain.errors import PolicyWarning
from authz.domain.instants import Instant, format_instant, parse_instant
from authz.domain.policy_changes import PolicyDiff

app = typer.Typer(help="Make, list and delete drafts of policies.", no_args_is_help=True)

Etag = Annotated[str | None, typer.Option("--etag", help="Refuse unless the draft has this etag.")]


@on_server(app, prints_json=False)
def create(
    context: Context,
    name: DraftName,
    base: Annotated[
        int | None,
        typer.Option("--base", min=1, help="The number of the version to copy. Default: the active one."),
    ] = None,
    author: Author = "",
    course: PolicyCourse = None,
) -> None:
    """Create a draft: a copy of a version, which decides nothing until you publish it."""
    draft = context.client.policies.drafts.create(name, base=base or 0, author=author, course_id=course)
    copied = f"a copy of version {draft.base_number}" if draft.base_number else "without rules"
    print(f"draft `{draft.id}` is {copied}")


@on_server(app, "list")
def list_drafts(context: Context, course: PolicyCourse = None) -> None:
    """List the drafts of the platform's policy, or of the policy of a course."""
    fields = ("id", "base_number", "etag", "author", "edited_at", "publication")
    drafts = context.client.policies.drafts.list(course_id=course)
    context.show(
        ("draft", "from version", "etag", "author", "edited at", "to be published"),
        drafts,
        lambda draft: [_cell_of(getattr(draft, name), name) for name in fields],
        lambda draft: {name: getattr(draft, name) for name in fields},
    )


def _cell_of(value: object, name: str) -> str:
    if not isinstance(value, DraftPublication):
        return cell_text(value, name)
    at = format_instant(value.at)
    return f"not at {at}: {value.error}" if value.error else at


@on_server(app, prints_json=False)
def cancel(context: Context, name: DraftName, course: PolicyCourse = None) -> None:
    """Cancel a publication that `publish --at` has scheduled. The draft stays."""
    drafts = context.client.policies.drafts
    draft = drafts.read(name, course_id=course)
    if draft.publication is None:
        raise ValueError(f"no publication of draft `{name}` is scheduled, so there is nothing to cancel")
    drafts.cancel(draft)
    print(f"the publication of draft `{name}` at {format_instant(draft.publication.at)} is cancelled")


@on_server(app, prints_json=False)
def delete(context: Context, name: DraftName, course: PolicyCourse = None) -> None:
    """Delete a draft."""
    drafts = context.client.policies.drafts
    drafts.delete(drafts.read(name, course_id=course))
    print(f"draft `{name}` is deleted")


@on_server()
def edit(
    context: Context,
    name: DraftName,
    cell: Annotated[
        tuple[str, str, str, str] | None,
        typer.Option(
            "--set",
            metavar="ROLE TYPE ACTION WHEN",
            help="Set a cell: always, never, or facts joined by &, alternatives by ;.",
        ),
    ] = None,
    remove: Annotated[
        list[str] | None, typer.Option(metavar="ROW", help="Remove a row. May be repeated.")
    ] = None,
    add: Annotated[list[str] | None, typer.Option(metavar="ROW", help="Add a row. May be repeated.")] = None,
    put: Annotated[
        list[str] | None, typer.Option(metavar="NAME=FILE", help="Add or replace a file. May be repeated.")
    ] = None,
    delete_file: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Delete a file. May be repeated.")
    ] = None,
    rebase: Annotated[
        bool, typer.Option("--rebase", help="First move the draft onto the active version.")
    ] = False,
    etag: Etag = None,
    course: PolicyCourse = None,
    verbose: Verbose = False,
) -> None:
    """Edit a draft, and show what it changes. Exit code: 0 edited, 2 refused."""
    edits: list[Edit] = [_file(given) for given in put or ()]
    edits += [DeleteFile(each) for each in delete_file or ()]
    edits += [*map(RemoveRow, remove or ()), *map(AddRow, add or ())]
    # Last, so that the cell may be of a type that a row or a file declares.
    edits += [] if cell is None else [_cell(*cell)]
    if not edits and not rebase:
        raise ValueError("nothing to edit; use --set, --add, --remove, --put, --delete-file or --rebase")
    drafts = context.client.policies.drafts
    edited = drafts.edit(_at(drafts.read(name, course_id=course), etag), edits, rebase=rebase)
    changes = None if edited.faults else _changes(context.client, name, course)
    _print(edited, changes, verbose=verbose, as_json=context.as_json)


def _changes(client: Client, name: str, course: str | None) -> PolicyDiff:
    """What a draft changes in the version that it was made from; of a course without one, in the platform's
    policy alone."""
    from authz.policy.course import COURSE_FILE

    draft = client.policies.drafts.read(name, course_id=course)
    return client.policies.diff(draft.base_number or {COURSE_FILE: ""}, draft.files, course_id=course)


def _print(edited: Draft, changes: PolicyDiff | None, *, verbose: bool, as_json: bool) -> None:
    if as_json:
        shown = {each: getattr(edited, each) for each in ("id", "etag", "base_number", "faults")}
        print_json(shown | {"changes": changes})
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


def _at(draft: Draft, etag: str | None) -> Draft:
    """The draft, if it has the etag that was asked for, if any."""
    if etag not in (None, draft.etag):
        raise ValueError(
            f"draft `{draft.id}` has been edited since: its etag is {draft.etag}, not `{etag}`; look at "
            f"what it changes (`authz policy diff --new draft:{draft.id}`), and name its etag"
        )
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
    return PutFile(name, read_text(Path(path)))


@on_server(writes=True)
def publish(
    context: Context,
    name: DraftName,
    author: Author = "",
    etag: Etag = None,
    at: Annotated[
        Instant | None,
        parsed_option("--at", "TIME", parse_instant, f"Let the servers publish it at this time, {TIME}."),
    ] = None,
    weaken_invariants: WeakenInvariants = False,
    course: PolicyCourse = None,
    verbose: Verbose = False,
) -> None:
    """Make a draft the next version of the policy, active on every server, and delete the draft.

    Exit code: 0 published, to be published or unchanged, 2 refused, with every fault.
    """
    policies = context.client.policies
    draft = _at(policies.drafts.read(name, course_id=course), etag)
    if at is None:
        with every_fault(context.client, draft.files, course):
            published = policies.publish(
                draft, author=author, reason=context.reason, weaken_invariants=weaken_invariants
            )
        changes = changes_by(context.client, published, course)
        print_published(context, published, changes, verbose=verbose)
    else:
        warnings = validated(context.client, draft.files, course)
        changes = changes_from_active(context.client, draft.files, course)
        planned = policies.drafts.schedule(
            draft, at, author=author, reason=context.reason, weaken_invariants=weaken_invariants
        )
        _print_planned(planned, warnings, changes, verbose=verbose, as_json=context.as_json)


def _print_planned(
    draft: Draft, warnings: list[PolicyWarning], changes: PolicyDiff | None, *, verbose: bool, as_json: bool
) -> None:
    if as_json:
        shown = {each: getattr(draft, each) for each in ("id", "etag", "publication")}
        print_json(shown | {"changes": changes, "warnings": warnings})
        return
    print_warnings(warnings, verbose=verbose)
    assert draft.publication is not None  # noqa: S101  that is what was asked for; narrows the type
    print(f"draft `{draft.id}` is to be published at {format_instant(draft.publication.at)}")
    if changes is not None:
        print_changes(changes, verbose=verbose)
