"""Plans an import: what it would change in the directory, and whether it may."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from authz.domain.errors import precondition_failed
from authz.domain.mutations import Mutation
from authz.importers.report import RowFault, Sourced, place

_FEW = 10


class Action(StrEnum):
    """What a change does to a record."""

    ADD = "added"
    CHANGE = "changed"
    SUSPEND = "suspended"
    REMOVE = "removed"


class Change(Sourced, frozen=True, kw_only=True):
    """A mutation that changes something, with the row that is its cause. Line 0 is absence from a file."""

    action: Action
    detail: str = ""

    def __str__(self) -> str:
        detail = f" ({self.detail})" if self.detail else ""
        return f"{place(self.file, self.line)}: {self.mutation.key}{detail}"


class Plan(msgspec.Struct, frozen=True):
    """The changes of an import in the order in which to apply them: first what ends access.

    `unchanged` counts the rows that change nothing. Of `live` memberships of the source, `ended` lose their
    role, `absent` of them because the export does not contain them.
    """

    changes: list[Change]
    unchanged: int
    faults: list[RowFault]
    notes: list[RowFault]
    live: int
    ended: int
    absent: int

    @property
    def mutations(self) -> list[Mutation]:
        """The mutations to import."""
        return [change.mutation for change in self.changes]

    def require_few_removals(self, max_removals: float) -> None:
        """Raise `FailedPreconditionError` if too many of the live memberships would lose their role.

        Up to ten that rows themselves end are few, unless none may end. Absence may be a file that was cut
        off, so its fraction alone counts.
        """
        limit = max_removals * self.live
        few = _FEW if max_removals else 0
        if self.absent <= limit and (self.ended <= limit or self.ended <= few):
            return
        raise precondition_failed(
            f"the import would end {self.ended} of {self.live} memberships of this roster, {self.absent} of "
            f"them because they are absent; at most {max_removals * 100:g}% may end. Nothing was written. "
            "Check the export with `--dry-run`, then import it with `--allow-removals`"
        )
