"""What the commands about policies print of changes and warnings: all of few, and counts of many."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TextIO

import grpc

from authz.client import CallError, Client, PublishedPolicy
from authz.domain.errors import PolicyWarning
from authz.domain.policy_changes import CellChange, PolicyDiff, sentences

_MAX_SENTENCES = 20
"""Of cells that change: more of them are counted."""
_MAX_NAMED = 3
_COUNTED = {
    "gains": "gained by",
    "losses": "lost by",
    "blocks": "also denied to holders of other roles by a deny row of",
    "unblocks": "no longer denied to holders of other roles by a deny row of",
}
"""The fields of a `CellChange`, in words about many."""
_NOT_COMPARABLE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.PERMISSION_DENIED)


def changes_from_active(
    client: Client, after: Mapping[str, str] | int, course: str | None
) -> PolicyDiff | None:
    """What a policy would change. None if that is not known: a server that cannot read the active version
    must not stop a publication, and a caller that may publish need not be permitted to read."""
    try:
        return client.policies.diff(0, after, course_id=course)
    except CallError as error:
        if error.code in _NOT_COMPARABLE:
            return None
        raise


def changes_by(
    client: Client,
    published: PublishedPolicy,
    course: str | None,
    validated: Mapping[str, str] | None = None,
) -> PolicyDiff | None:
    """What a publication has changed in the version that it replaced, which another admin may have activated
    after the command began; what it would change, if its files were only `validated`. None if that is not
    known."""
    from authz.policy.course import COURSE_FILE

    if validated is not None:
        return changes_from_active(client, validated, course)
    if not published.changed:
        return PolicyDiff((), ())
    replaced = published.number - 1
    try:
        return client.policies.diff(replaced or {COURSE_FILE: ""}, published.number, course_id=course)
    except CallError:  # it is published, whether or not the versions can be compared
        return None


def print_changes(found: PolicyDiff, *, verbose: bool) -> None:
    """Print what changes: each declaration and file, then each cell, or how many if there are many."""
    if not found:
        print("no access changes: by their own rules, the two policies decide everything alike")
    for line in found.declarations:
        print(line)
    lines = [line for change in found.cells for line in sentences(change)]
    if verbose or len(lines) <= _MAX_SENTENCES:
        for line in lines:
            print(line)
        return
    for line in _counts(found.cells):
        print(line)
    print(f"{len(lines)} changes in all; --verbose tells each one, and when")


def _counts(cells: Sequence[CellChange]) -> Iterator[str]:
    """How many actions change in each way, for which roles and on which types, separately for each course."""
    for course_id in dict.fromkeys(cell.course_id for cell in cells):
        here = [cell for cell in cells if cell.course_id == course_id]
        where = "" if course_id is None else f", in course {course_id}"
        for kind, by_whom in _COUNTED.items():
            changed = [cell for cell in here if getattr(cell, kind)]
            if changed:
                count = counted(len(changed), "action")
                roles = most_common(Counter(f"`{cell.role}`" for cell in changed), "roles")
                types = ", ".join(dict.fromkeys(cell.type for cell in changed))
                yield f"{count} on {types}{where}: {by_whom} {roles}"


def print_warnings(warnings: Iterable[PolicyWarning], *, verbose: bool, file: TextIO | None = None) -> None:
    """Print warnings; those that say the same of many rows as one, unless `verbose`. To standard error, if no
    file is named."""
    same: dict[str, list[PolicyWarning]] = {}
    for warning in warnings:
        same.setdefault(str(warning) if verbose else warning.text, []).append(warning)
    for text, found in same.items():
        line = str(found[0]) if len(found) == 1 else f"{_rows(found)}: {text}"
        print(f"warning: {line}", file=file or sys.stderr)


def _rows(found: Sequence[PolicyWarning]) -> str:
    """How many rows, the first ones, and of which roles."""
    places = [warning.where for warning in found]
    roles = Counter(f"`{warning.role}`" for warning in found if warning.role)
    of_roles = f" of {most_common(roles, 'roles')}" if roles else ""
    more = f" and {len(places) - _MAX_NAMED} more" if len(places) > _MAX_NAMED else ""
    return f"{len(places)} rows{of_roles} ({', '.join(places[:_MAX_NAMED])}{more})"


def counted(number: int, noun: str) -> str:
    """A number with a noun, in the plural if it is not one."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def most_common(counts: Counter[str], noun: str) -> str:
    """Names with their counts, the largest first; a single name alone."""
    if len(counts) == 1:
        return next(iter(counts))
    shown = ", ".join(f"{name} {count}" for name, count in counts.most_common(_MAX_NAMED))
    more = len(counts) - _MAX_NAMED
    return shown + (f" and {more} more {noun}" if more > 0 else "")
