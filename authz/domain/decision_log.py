"""The decision log: entries and queries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Protocol

import msgspec

from authz.domain.audit import Principal
from authz.domain.ids import ResourceRef, Subject
from authz.domain.instants import Instant
from authz.domain.kinds.fields import MaxLength
from authz.domain.ports import Page

REFUSED_CODES = ("PERMISSION_DENIED", "UNAUTHENTICATED")
"""The status of a call that was refused because of its caller."""
EVERY_ACTION = "*"
"""The action of an entry that stands for all actions, which were all denied."""
UNLOGGED_WRITES = ("ForgetReplica", "ForgetWatcher")
"""Methods that change what the change log does not have."""


class DecisionEntry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A decision, a privileged or refused call, or one that changes what the change log does not have.

    `caller` made the call, for `person` if it named one, and asked about `subject`, written `user:<id>`.
    `resource` is `<type>:<id>`, or the type alone for `create`. `role` and `rule` (`file:line`) are those of
    the row that decided. `code` is the status of the call.

    In an entry without a decision, `subject`, `resource` and `action` are those that the call requested, if
    any; `allowed` says whether the caller was permitted to call, and `reason` is the reason of the error.
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


_NAMES = ("subject", "person", "caller")


def names_in(entry: DecisionEntry) -> tuple[str, ...]:
    """Whom an entry names."""
    return (entry.subject, entry.person, entry.caller)


def with_pseudonyms(entry: DecisionEntry, erased: Mapping[str, str]) -> DecisionEntry:
    """An entry with the pseudonyms of those who were erased, and then without its request id."""
    given = zip(_NAMES, names_in(entry), strict=True)
    values = {field: erased[name] for field, name in given if name in erased}
    return msgspec.structs.replace(entry, request_id="", **values) if values else entry


class StoredDecision(DecisionEntry, frozen=True, kw_only=True, gc=False):
    """An entry in the database, and the number of the leaf that it is in; 0 if it is in none."""

    leaf: int = 0


class DecisionQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which entries to list; an empty field filters nothing. From `since` on, before `until`.

    `principal` is the caller, or the person on whose behalf it called. `allowed` True matches only decisions,
    because a call without a decision lets nobody in.
    """

    subject: Subject | None = None
    resource: ResourceRef | None = None
    principal: Principal = ""
    action: Annotated[str, MaxLength(64)] = ""
    allowed: bool | None = None
    since: Instant | None = None
    until: Instant | None = None
    oldest_first: bool = False


class DecisionPage(msgspec.Struct, frozen=True):
    """A page of entries. `next_token` is empty exactly on the last page."""

    entries: tuple[StoredDecision, ...]
    next_token: str


class DecisionTable(Protocol):
    """The decision log in the database. Every call blocks."""

    def append(self, entries: Sequence[DecisionEntry]) -> None:
        """Store entries in one transaction, as the next leaf of the tree of the decisions. Idempotent:
        appending the same entries twice stores them once.

        Raises `InvalidArgumentError` for text that the database cannot store, and then stores nothing."""

    def read(self, query: DecisionQuery, page: Page) -> DecisionPage:
        """A page of the entries that match a query, ordered by time in the direction that it asks for.

        Looks at a bounded number of rows, as `AuditTrail.read_changes`, and raises as that.
        """
