"""The decision log: what is kept of a decision."""

from __future__ import annotations

import msgspec

from authz.domain.instants import Instant


class DecisionEntry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A decision, or a call that shows what others may not see or that was refused.

    `caller` made the call, for `person` if it named one, and asked about `subject`, written `user:<id>`.
    `resource` is `<type>:<id>`, or the type alone for `create`. `role` and `rule` (`file:line`) are those of
    the row that decided. `code` is the status of the call.

    If nothing was decided, `subject`, `resource` and `action` are what the call asked for, as far as it did,
    `allowed` says whether the caller might make it, and `reason` is that of its error.
    """

    decision_id: str
    at: Instant
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
