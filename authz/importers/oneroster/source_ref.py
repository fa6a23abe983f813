"""What a membership's `source_ref` records of the enrollment that gave it.

`e-1;modified=2026-09-01T08:00:00Z;term;suspended=row` is the enrollment `e-1` as last modified then. Its end
is that of its class's term, and the roster suspended the membership because of a row at fault.
"""

from __future__ import annotations

import re

import msgspec

from authz.domain.errors import InvalidArgumentError
from authz.domain.instants import Instant, format_instant, parse_instant

MAX_SOURCED_ID_LENGTH = 184
"""So that a `source_ref` has room for the rest."""

_REF = re.compile(
    r"(?P<id>.*?)(?:;modified=(?P<modified>[0-9T:.\-]+Z))?(?P<term>;term)?"
    r"(?P<row>;suspended=row)?(?P<user>;suspended=user)?",
    re.DOTALL,
)


class SourceRef(msgspec.Struct, frozen=True, gc=False):
    """The enrollment that gave a membership.

    `modified_at` is the latest `dateLastModified` that was imported. `ends_with_term`: the end is the term's.
    `suspended_by_row` and `suspended_by_user`: the roster suspended the membership because of a row at fault
    or because the user is deleted or disabled. A suspension without one of these was given by hand.
    """

    sourced_id: str
    modified_at: Instant | None = None
    ends_with_term: bool = False
    suspended_by_row: bool = False
    suspended_by_user: bool = False

    @property
    def is_suspended(self) -> bool:
        """Whether the roster suspended the membership."""
        return self.suspended_by_row or self.suspended_by_user

    def __str__(self) -> str:
        modified = "" if self.modified_at is None else f";modified={format_instant(self.modified_at)}"
        return (
            f"{self.sourced_id}{modified}{';term' * self.ends_with_term}"
            f"{';suspended=row' * self.suspended_by_row}{';suspended=user' * self.suspended_by_user}"
        )


def parse_source_ref(text: str) -> SourceRef:
    """Read a `source_ref`. Whatever does not end in what is recorded here is a sourcedId alone."""
    if ";" not in text:
        return SourceRef(text)
    found = _REF.fullmatch(text)
    assert found is not None  # noqa: S101  every part is optional
    modified = found["modified"]
    try:
        modified_at = parse_instant(modified, field="modified") if modified else None
    except InvalidArgumentError:
        return SourceRef(text)
    return SourceRef(found["id"], modified_at, bool(found["term"]), bool(found["row"]), bool(found["user"]))
