"""What is proved of a policy, and what changes between two, as values: declarations and cells, never rows or
line numbers."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

KINDS = {
    "gains": "gains",
    "losses": "loses",
    "blocks": "now also denies to holders of other roles:",
    "unblocks": "no longer denies to holders of other roles:",
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
    """What changes for one role, type and action. A condition is text; an empty one is "always".

    `course_id` is None for all courses whose exceptions do not make the change differ. `gains` and `losses`
    are for subjects whose only role is `role`; `blocks` and `unblocks` say when a deny row of the role begins
    or ceases to deny the action to subjects whom another role allows it.
    """

    role: str
    type: str
    action: str
    course_id: str | None = None
    gains: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()
    blocks: tuple[str, ...] = ()
    unblocks: tuple[str, ...] = ()


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
