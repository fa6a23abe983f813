"""`authz policy courses`: the policies of all courses, as a repository keeps them, a file for each course."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple
from urllib.parse import quote, unquote

import grpc
import typer

from authz.cli.command import Context, on_server
from authz.cli.errors import EXPECTED, message_of
from authz.cli.options import Author
from authz.cli.output import print_json
from authz.cli.policy_base import has_base, write_base
from authz.cli.policy_source import SHOWN_DIGEST, PolicyFiles, every_fault, read_source
from authz.cli.policy_versions import based_on_active, update_base
from authz.client import CallError, Client
from authz.domain.entities import PolicyActivation
from authz.domain.errors import PolicyError, PolicyFault, PolicyWarning
from authz.domain.ids import ScopeKind
from authz.domain.vocabulary import join_names

app = typer.Typer(no_args_is_help=True, help="List, apply and export the policies of all courses.")

_SUFFIX = ".csv"
_APPLIED, _UNCHANGED, _REFUSED, _REMOVED = "applied", "unchanged", "refused", "removed"
_MAX_REMOVED = 0.1
"""Of the policies of courses, without `--allow-removals`: a file may be missing by mistake."""
_MAX_NAMED = 20
"""Courses that an error names; it counts the others."""
_NOT_OF_FILE = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.INTERNAL,
)
"""Errors that say nothing about what was sent."""


class _CourseFile(NamedTuple):
    """The file of the policy of a course, and what is in it. No path: the folder has none."""

    course_id: str
    path: Path | None
    files: dict[str, str]

    def __str__(self) -> str:
        return f"course `{self.course_id}` in `{self.path}`" if self.path else f"course `{self.course_id}`"


@on_server(app, "list")
def list_courses(context: Context) -> None:
    """List the courses that have a policy of their own, with the version that is active there."""
    context.show(("course", "version", "digest"), context.client.policies.of_courses(), _cells, _as_json)


def _cells(active: PolicyActivation) -> tuple[str, ...]:
    return active.scope.id, str(active.number), active.digest[:SHOWN_DIGEST]


def _as_json(active: PolicyActivation) -> dict[str, object]:
    return {"course_id": active.scope.id, "number": active.number, "digest": active.digest}


@on_server(app, writes=True)
def apply(
    context: Context,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="It has a CSV file for each course.")],
    author: Author = "",
    validate_only: Annotated[bool, typer.Option("--validate-only", help="Change nothing.")] = False,
    remove_absent: Annotated[
        bool, typer.Option("--remove-absent", help="End the policy of each course without a file.")
    ] = False,
    allow_removals: Annotated[
        bool, typer.Option("--allow-removals", help="With --remove-absent, end any number of policies.")
    ] = False,
) -> None:
    """Make each file of a folder the next version of the policy of the course that its rows name.

    A file equal to what is active changes nothing, and a course without a file keeps what it has. A file that
    is refused does not stop the others; a server that does not answer does.

    With --remove-absent, a course without a file gets a version without rows: only the platform's rules count
    there. For more than a tenth of all policies of courses, that needs --allow-removals.

    Exit code: 0 applied, removed or unchanged, 2 if a file was refused, with the reason of each.
    """
    if allow_removals and not remove_absent:
        raise ValueError("`--allow-removals` permits what `--remove-absent` does; add it, or leave both out")
    files = _read_folder(folder)
    active = {each.scope.id: each for each in context.client.policies.of_courses()}
    if remove_absent:
        absent, count = _absent(context.client, files, active)
        if not allow_removals:
            _require_few(absent, count, validate_only=validate_only)
        files += absent
    counts: Counter[str] = Counter()
    for each in files:
        result = _apply(context, each, active.get(each.course_id), author=author, validate_only=validate_only)
        counts[result.outcome] += 1
        _print(context, each, result, validate_only=validate_only)
    if not context.as_json:
        print(_summary(counts, validate_only=validate_only, remove_absent=remove_absent))
    if counts[_REFUSED]:
        raise typer.Exit(2)


def _summary(counts: Counter[str], *, validate_only: bool, remove_absent: bool) -> str:
    applied, removed = ("valid and different", "to be removed") if validate_only else (_APPLIED, _REMOVED)
    of_absent = f", {removed} {counts[_REMOVED]}" if remove_absent else ""
    others = f"{_UNCHANGED} {counts[_UNCHANGED]}, {_REFUSED} {counts[_REFUSED]}"
    return f"{applied} {counts[_APPLIED]}, {others}{of_absent}"


def _absent(
    client: Client, files: Sequence[_CourseFile], active: Mapping[str, PolicyActivation]
) -> tuple[list[_CourseFile], int]:
    """The courses that have rows of their own and no file, each with a file without rows; and how many
    courses have rows at most."""
    from authz.policy.course import COURSE_FILE

    ended = {COURSE_FILE: ""}
    present = {each.course_id for each in files}
    absent, count = [], len(active)
    for course_id, activation in active.items():
        if course_id in present:
            continue
        kept = client.policies.files(activation.number, course_id=course_id)
        if _scopes_of(kept[COURSE_FILE]):
            absent.append(_CourseFile(course_id, None, ended))
        else:
            count -= 1
    return absent, count


def _require_few(absent: Sequence[_CourseFile], count: int, *, validate_only: bool) -> None:
    """Raise `ValueError` for too many, or with `validate_only` say that a run without it would."""
    if len(absent) <= _MAX_REMOVED * count:
        return
    named = join_names([f"`{each.course_id}`" for each in absent], _MAX_NAMED)
    problem = (
        f"the folder has no file for {len(absent)} of {count} courses with a policy of their own: {named}; at"
        f" most {_MAX_REMOVED * 100:g}% of the policies may end without `--allow-removals`"
    )
    if not validate_only:
        raise ValueError(f"{problem}; nothing was applied; look at them with `--validate-only`")
    print(f"note: {problem}", file=sys.stderr)


def _print(context: Context, file: _CourseFile, result: _Result, *, validate_only: bool) -> None:
    if context.as_json:
        print_json({"course_id": file.course_id, **result._asdict()})
        return
    if result.problem:
        print(f"{file} is refused: {result.problem}", file=sys.stderr)
    elif result.outcome == _REMOVED:
        would = "would be removed" if validate_only else "is removed"
        print(f"the policy of course `{file.course_id}` {would}")
    elif result.outcome == _APPLIED and not validate_only:
        print(f"version {result.number} is active in course `{file.course_id}`")
    for warning in result.warnings:
        print(f"warning: course `{file.course_id}`: {warning}", file=sys.stderr)


class _Result(NamedTuple):
    """What came of a file, the number of the version that is active then, why the file was refused, the
    faults for which it was, and what is legal and surprising in it."""

    outcome: str
    number: int
    problem: str = ""
    faults: Sequence[PolicyFault] = ()
    warnings: Sequence[PolicyWarning] = ()


def _apply(
    context: Context,
    file: _CourseFile,
    active: PolicyActivation | None,
    *,
    author: str,
    validate_only: bool,
) -> _Result:
    """Apply a file, unless another version has become active since `active` was read."""
    client, number = context.client, 0 if active is None else active.number
    if active is not None and active.digest == PolicyFiles(file.files, "").digest:
        return _Result(_UNCHANGED, number)
    try:
        if file.path and has_base(file.path):
            number = based_on_active(client, file.path, file.files, file.course_id)
        with every_fault(client, file.files, file.course_id):
            published = client.policies.apply(
                file.files,
                author=author,
                reason=context.reason,
                expected_active=number,
                validate_only=validate_only,
                course_id=file.course_id,
            )
    except EXPECTED as error:
        if isinstance(error, CallError) and error.code in _NOT_OF_FILE:
            raise  # the next file would fare no better
        faults = error.faults if isinstance(error, PolicyError | CallError) else ()
        return _Result(_REFUSED, number, message_of(error), faults)
    if file.path is None and published.changed:
        return _Result(_REMOVED, published.number)
    if file.path and has_base(file.path) and not validate_only:
        update_base(file.path, PolicyFiles(file.files, "", published.number))
    outcome = _APPLIED if published.changed else _UNCHANGED
    return _Result(outcome, published.number, warnings=published.warnings)


def _read_folder(folder: Path) -> list[_CourseFile]:
    """The files of a folder, in the order of their names.

    Raises `ValueError` if it has none, one that is of no course, or two of one.
    """
    if not folder.is_dir():
        raise ValueError(f"there is no folder `{folder}`; name one that has a CSV file for each course")
    found: dict[str, _CourseFile] = {}
    for path in sorted(each for each in folder.iterdir() if each.suffix.lower() == _SUFFIX):
        if path.name.startswith("."):
            continue  # of an editor, or of a file system that keeps its own notes
        file = _read_file(path)
        first = found.setdefault(file.course_id, file)
        if first is not file:
            both = f"`{first.path}` and `{path}` are both of course `{file.course_id}`"
            raise ValueError(f"{both}; put their rows into one file")
    if not found:
        raise ValueError(f"`{folder}` has no file whose name ends in {_SUFFIX}; name another folder")
    return list(found.values())


def _read_file(path: Path) -> _CourseFile:
    """A file, and the course that its rows name; of a file without rows, that of its name."""
    files = read_source(path, str(path))
    courses = {scope.partition(":")[2] for text in files.values() for scope in _scopes_of(text)}
    if len(courses) > 1:
        named = " and ".join(f"`{each}`" for each in sorted(courses)[:2])
        raise ValueError(f"`{path}` has rows of the courses {named}; write a file for each course")
    return _CourseFile(courses.pop() if courses else unquote(path.stem), path, files)


def _scopes_of(text: str) -> list[str]:
    from authz.policy.course import COURSE_FILE
    from authz.policy.rows import Faults, read_rows

    rows = read_rows(COURSE_FILE, text, Faults())
    prefix = f"{ScopeKind.COURSE.value}:"
    return [cell for row in rows for cell in row.texts if cell.startswith(prefix)]


@on_server(app, prints_json=False)
def export(
    context: Context,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new or empty folder.")],
) -> None:
    """Write the active policy of each course that has one into a file of a folder."""
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"`{folder}` is not empty; name a new folder, so that no file of yours is lost")
    folder.mkdir(parents=True, exist_ok=True)
    written = 0
    for active in context.client.policies.of_courses():
        _export(context.client, active, folder)
        written += 1
    print(f"wrote {written} files to {folder}")


def _export(client: Client, active: PolicyActivation, folder: Path) -> None:
    from authz.policy.course import COURSE_FILE

    files = client.policies.files(active.number, course_id=active.scope.id)
    path = folder / f"{quote(active.scope.id, safe='@+=|:~')}{_SUFFIX}"
    with path.open("xb") as file:  # not over that of an id that differs in case, on a disk that ignores case
        file.write(files[COURSE_FILE].encode())
    write_base(path, PolicyFiles(files, "", active.number))
