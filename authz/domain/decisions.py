"""A question and its answer."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from authz.domain.effective_roles import InactiveReason
from authz.domain.entities import Resource
from authz.domain.ids import ResourceRef, Subject
from authz.domain.instants import Instant
from authz.domain.vocabulary import API_TYPE

CREATE_ACTION = "create"
JOIN = "join"
AI_PROCESS = "ai_process"
EDIT_POLICY = "edit_policy"
MANAGE_MEMBERS = "manage_members"
COURSE_TYPE = "course"
SESSION_TYPE = "session"
STRUCTURAL_TYPES = (COURSE_TYPE, SESSION_TYPE, API_TYPE)
"""The types that are no content: what content is in, and the API."""
MAX_BATCH_ITEMS = 1000


class Reason(StrEnum):
    """The reason for an answer. `ROLE_GRANT` allows; the others deny."""

    ROLE_GRANT = "ROLE_GRANT"
    EXPLICIT_DENY = "EXPLICIT_DENY"
    CONDITION_NOT_MET = "CONDITION_NOT_MET"
    NO_RULE = "NO_RULE"
    NOT_A_MEMBER = "NOT_A_MEMBER"
    MEMBERSHIP_NOT_EFFECTIVE = "MEMBERSHIP_NOT_EFFECTIVE"
    RESOURCE_UNKNOWN = "RESOURCE_UNKNOWN"
    SCOPE_MISMATCH = "SCOPE_MISMATCH"
    PURPOSE_NOT_PERMITTED = "PURPOSE_NOT_PERMITTED"


REVEALING_REASONS = (Reason.NOT_A_MEMBER, Reason.RESOURCE_UNKNOWN, Reason.SCOPE_MISMATCH)
"""Reasons that together tell what is registered, and where: only those who may know learn which it was."""


class Rule(msgspec.Struct, frozen=True, gc=False):
    """One rule of the policy, as written, with its position. An empty `condition` always holds."""

    role: str
    scope: str
    type: str
    action: str
    condition: str
    effect: str
    source: str
    """`file:line`."""

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields of its row, in order."""
        return self.role, self.scope, self.type, self.action, self.condition, self.effect


class Verdict(msgspec.Struct, frozen=True, gc=False, cache_hash=True):
    """A decision without its time and state.

    `rule` is the deny or the allow that decided. For CONDITION_NOT_MET it is the allow that came nearest, and
    `unmet` is the mask of its missing facts. `inactive_reason` is set for MEMBERSHIP_NOT_EFFECTIVE.
    """

    allowed: bool
    reason: Reason
    rule: Rule | None = None
    unmet: int = 0
    inactive_reason: InactiveReason | None = None


class Question(msgspec.Struct, frozen=True, gc=False):
    """May `subject` perform `action` on the resource, for `purpose`?

    For `create`, `resource` has an empty id, and the stated course or session is where to create it. For
    other actions, the stated course and session must equal those of the resource. `inline` describes an
    unregistered resource.
    """

    subject: Subject
    action: str
    resource: ResourceRef
    stated_course_id: str | None = None
    stated_session_id: str | None = None
    inline: Resource | None = None
    purpose: str = ""


class Decision(msgspec.Struct, frozen=True, gc=False):
    """The answer. `valid_until` is the earliest instant at which passing time alone changes it.

    `course_policy_version` is the number of the active policy of the resource's course; empty without one.
    """

    verdict: Verdict
    policy_version: str
    revision: int
    valid_until: Instant | None = None
    course_policy_version: str = ""

    @property
    def allowed(self) -> bool:
        """Whether the subject may perform the action."""
        return self.verdict.allowed

    @property
    def reason(self) -> Reason:
        """The reason for the answer."""
        return self.verdict.reason

    @property
    def rule(self) -> Rule | None:
        """The rule that decided or came nearest to allowing."""
        return self.verdict.rule
