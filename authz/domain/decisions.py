"""A question and its answer."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from authz.domain.effective_roles import InactiveReason
from authz.domain.entities import Resource
from authz.domain.ids import ResourceRef, Subject
from authz.domain.instants import Instant

CREATE_ACTION = "create"
MAX_BATCH_ITEMS = 1000


class Reason(StrEnum):
    """Why the answer is what it is."""

    ROLE_GRANT = "ROLE_GRANT"
    EXPLICIT_DENY = "EXPLICIT_DENY"
    CONDITION_NOT_MET = "CONDITION_NOT_MET"
    NO_RULE = "NO_RULE"
    NOT_A_MEMBER = "NOT_A_MEMBER"
    MEMBERSHIP_NOT_EFFECTIVE = "MEMBERSHIP_NOT_EFFECTIVE"
    RESOURCE_UNKNOWN = "RESOURCE_UNKNOWN"
    SCOPE_MISMATCH = "SCOPE_MISMATCH"
    PURPOSE_NOT_PERMITTED = "PURPOSE_NOT_PERMITTED"


class Rule(msgspec.Struct, frozen=True, gc=False):
    """One policy row, as written, with where it stands. `condition` is empty for always."""

    role: str
    scope: str
    type: str
    action: str
    condition: str
    effect: str
    source: str
    """`file:line`."""


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """A decision but for its time and state.

    `rule` is the one that decided: the deny, the allow, or, for CONDITION_NOT_MET, the allow that
    came nearest, with `unmet` its missing facts as a mask. `inactive_reason` says, for
    MEMBERSHIP_NOT_EFFECTIVE, why.
    """

    allowed: bool
    reason: Reason
    rule: Rule | None = None
    unmet: int = 0
    inactive_reason: InactiveReason | None = None


class Question(msgspec.Struct, frozen=True, gc=False):
    """May `subject` do `action` with the resource, for `purpose`?

    For `create`, `resource` has an empty id and the stated scope says where. Else the stated course
    and session are only compared with the truth. `inline` describes an unregistered resource.
    """

    subject: Subject
    action: str
    resource: ResourceRef
    stated_course_id: str | None = None
    stated_session_id: str | None = None
    inline: Resource | None = None
    purpose: str = ""


class Decision(msgspec.Struct, frozen=True, gc=False):
    """The answer. `valid_until` is the earliest instant at which time alone could change it."""

    verdict: Verdict
    policy_version: str
    revision: int
    valid_until: Instant | None = None

    @property
    def allowed(self) -> bool:
        """Whether the subject may."""
        return self.verdict.allowed

    @property
    def reason(self) -> Reason:
        """Why."""
        return self.verdict.reason

    @property
    def rule(self) -> Rule | None:
        """The rule that decided or came nearest."""
        return self.verdict.rule
