"""What changes between two policies, as values: declarations and cells, never rows or line numbers."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec


class PolicySource(msgspec.Struct, frozen=True):
    """A policy by the text of its files, else by the number of its version; 0 for the active one."""

    files: str = ""
    number: int = 0


class CellChange(msgspec.Struct, frozen=True, kw_only=True):
    """What changes for who holds one role. A condition is text; an empty one is "always".

    `course_id` is None for every course whose override does not make it another change. `gains` and `losses`
    are for who holds no other role there; `takes` and `leaves` say when a deny row of the role begins or
    ceases to stop somebody who holds another role, too.
    """

    role: str
    type: str
    action: str
    course_id: str | None = None
    gains: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    leaves: tuple[str, ...] = ()


class PolicyDiff(msgspec.Struct, frozen=True):
    """Declarations that changed, in words, and the cells that changed."""

    declarations: tuple[str, ...]
    cells: tuple[CellChange, ...]

    def __bool__(self) -> bool:
        return bool(self.declarations or self.cells)


def sentences(change: CellChange) -> Iterator[str]:
    """A change in words, one for each thing that changes."""
    where = "" if change.course_id is None else f" in course {change.course_id}"
    what = f"{change.action} on {change.type}{where}"
    for conditions, text in (
        (change.gains, f"`{change.role}` gains {what}"),
        (change.losses, f"`{change.role}` loses {what}"),
        (change.takes, f"`{change.role}` now also stops who holds another role: {what}"),
        (change.leaves, f"`{change.role}` no longer stops who holds another role: {what}"),
    ):
        if conditions:
            always = "" in conditions
            yield text + (", always" if always else f", when {' or when '.join(conditions)}")
    if not (change.gains or change.losses or change.takes or change.leaves):
        yield f"`{change.role}` keeps {what} as it is"
