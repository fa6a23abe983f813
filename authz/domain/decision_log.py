"""The decision log: what is kept of a decision, and what of that to list."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from authz.domain.ids import ResourceRef, Subject
from authz.domain.instants import Instant
from authz.domain.ports import Page


class DecisionEntry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A decision, or a call that shows what others may not see or that was refused.

    `caller` made the call, for `person` if it named one, and asked about `subject`, written `user:<id>`.
    `resource` is `<type>:<id>`, or the type alone for `create`. `role` and `rule` (`file:line`) are those of
    the row that decided. `code` is the status of the call.

    If nothing was decided, `subject`, `resource` and `action` are what the call asked for, as far as it did,
    `allowed` says whether the caller might make it, and `reason` is that of its error.
    """

    at: Instant
    decision_id: str
    method: str
    code: str
    caller: str
    person: str = ""
    request_id: str = ""
    subject: str = ""
    action: str = ""
    resource: str = ""
    course_id: str = ""
    session_id: str = ""
    purpose: str = ""
    allowed: bool
    reason: str = ""
    role: str = ""
    rule: str = ""
    policy_version: str = ""
    course_policy_version: str = ""
    revision: int = 0
    duration_us: int


class DecisionQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which entries to list; an empty field filters nothing. From `since` on, before `until`.

    `principal` is the caller or the person that it called for. With `allowed` True there are decisions alone:
    a call that decides nothing lets nobody in.
    """

    subject: Subject | None = None
    resource: ResourceRef | None = None
    principal: str = ""
    action: str = ""
    allowed: bool | None = None
    since: Instant | None = None
    until: Instant | None = None
    oldest_first: bool = False


class DecisionPage(msgspec.Struct, frozen=True):
    """A page of entries. `next_token` is empty exactly on the last page."""

    entries: tuple[DecisionEntry, ...]
    next_token: str


class DecisionTable(Protocol):
    """The decision log in the database. Every call blocks."""

    def append(self, entries: Sequence[DecisionEntry], *, keep_us: int = 0) -> None:
        """Keep entries, in one transaction. To append an entry twice is to append it once.

        With `keep_us`, it also deletes some of those that are older than the newest of these by more: up to
        twice as many as it keeps, so that what is over goes in bounded steps.
        """

    def read(self, query: DecisionQuery, page: Page) -> DecisionPage:
        """A page of the entries that match a query, ordered by time in the direction that it asks for.

        Looks at a bounded number of rows, as `AuditTrail.read_changes`.
        """
