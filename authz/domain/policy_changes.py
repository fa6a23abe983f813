"""What is proved of a policy, and what changes between two, as values: declarations and cells, never rows or
line numbers."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

KINDS = {
    "gains": "gains",
    "losses": "loses",
    "takes": "now also stops who holds another role:",
    "leaves": "no longer stops who holds another role:",
}
"""How a cell may change: the field of a `CellChange`, and its verb."""


class PolicySource(msgspec.Struct, frozen=True):
    """A policy by the text of its files, else by the number of its version; 0 for the active one."""

    files: str = ""
    number: int = 0


class PolicyCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """That a version keeps its invariants, for which digests and over how many cases. `json` is the whole
    certificate, which `authz policy prove --check` accepts."""

    policy_digest: str
    invariants_digest: str
    invariants: int
    obligations: int
    json: str


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
    changed = [(verb, getattr(change, kind)) for kind, verb in KINDS.items() if getattr(change, kind)]
    for verb, conditions in changed:
        when = "always" if "" in conditions else f"when {' or when '.join(conditions)}"
        yield f"`{change.role}` {verb} {what}, {when}"
    if not changed:
        yield f"`{change.role}` keeps {what} as it is"
