"""Seeded leaks: rows that make the default policy break invariants, each with those that it breaks."""

from __future__ import annotations

from typing import NamedTuple

from authz.policy.compile import CompiledPolicy
from authz.policy.load import POLICY_FILE, policy_directory
from tests.policies import compiled

DEFAULT = (policy_directory() / POLICY_FILE).read_text()


class Leak(NamedTuple):
    """`rows` are added to the default policy, after `replaced` became the second of its pair, if given."""

    rows: str
    broken: tuple[str, ...]
    replaced: tuple[str, str] | None = None


LEAKS = {
    "a role wildcard": Leak(
        "p, *, *, notebook, read, , allow",
        (
            "private-content",
            "session-content",
            "platform-roles-open-no-content",
            "callers-open-nothing-but-the-api",
        ),
    ),
    "an AI gateway that asks anything": Leak(
        "p, ai_gateway, *, api, check, , allow", ("ai-gateways-ask-about-ai-only",)
    ),
    "a service that gives itself rights": Leak(
        "p, enrolment_service, *, api, grant_roles, , allow", ("callers-do-not-promote-themselves",)
    ),
    "a service that opens a course": Leak(
        "p, checker, *, course, archive, , allow",
        ("callers-open-nothing-but-the-api", "courses-are-closed-by-their-owners"),
    ),
    "a session that is entered by who does not attend it": Leak(
        "p, student, *, session, join, , allow", ("closed-sessions",)
    ),
    "content of a session for who does not attend it": Leak(
        "p, auditor, *, session_note, read, session_visible, allow", ("session-content",)
    ),
    "a new type that is open to a course": Leak(
        "type, quiz, create|read\np, student, *, quiz, read, , allow", ("private-content", "session-content")
    ),
    "a type wildcard": Leak("p, student, *, *, read, own, allow", ("unpublished-materials",)),
    "a missing `published`": Leak(
        "",
        ("unpublished-materials",),
        ("p, student, *, material, read, published, allow", "p, student, *, material, read, , allow"),
    ),
    "an override that re-grants": Leak(
        "p, student, course:a-course, material, read, , allow", ("unpublished-materials",)
    ),
    "an override for content of a course": Leak(
        "p, teacher, course:x, session_note, read, published, allow", ("private-content",)
    ),
    "a share across courses": Leak(
        "p, support_agent, *, notebook, read, shared_view, allow", ("platform-roles-open-no-content",)
    ),
    "a role on the platform that joins": Leak(
        "p, platform_admin, *, session, join, , allow", ("platform-roles-open-no-content",)
    ),
    "a role on the platform that joins with those who attend": Leak(
        "p, platform_admin, *, session, join, attending & session_live, allow",
        ("platform-roles-open-no-content",),
    ),
    "a custom role based on `owner`": Leak(
        "role, helper, course, 25, no,\ng, helper, owner",
        (
            "unpublished-materials",
            "session-content",
            "closed-sessions",
            "students-create-no-materials",
            "courses-are-closed-by-their-owners",
            "members-are-managed-by-staff",
        ),
    ),
    "a custom role based on `owner`, of a rank of its own": Leak(
        "role, helper, course, 45, no,\ng, helper, owner", ("courses-are-closed-by-their-owners",)
    ),
    "a negation that opens": Leak(
        "",
        ("archived-courses-are-read-only",),
        (
            "p, *, *, *, update, course_archived, deny",
            "p, *, *, *, update, course_archived & !own, deny",
        ),
    ),
    "a gate for another fact": Leak(
        "",
        ("locked-means-locked",),
        ("p, *, *, *, delete, locked, deny", "p, *, *, *, delete, locked & published, deny"),
    ),
    "AI without its purpose": Leak(
        "p, teacher, *, material, ai_process, ai_enabled, allow", ("ai-needs-its-purpose",)
    ),
    "AI without permission": Leak(
        "p, teacher, *, material, ai_process, for_ai_response, allow", ("ai-needs-permission",)
    ),
    "a caller that checks and may also erase people": Leak(
        "p, checker, *, api, erase_subject, , allow", ("personal-data-is-the-privacy-officers",)
    ),
    "a message that a teacher corrects": Leak(
        "p, teacher, *, message, update, course_visible, allow", ("messages-are-changed-by-their-authors",)
    ),
    "a guest who may see less than before": Leak(
        "p, *, *, material, read, attending & !shared_view, deny", ("a-role-takes-nothing-away",)
    ),
    "an override in which who joins a session sees less": Leak(
        "p, student, course:x, material, read, attending, deny", ("a-role-takes-nothing-away",)
    ),
}

REFUSED = {
    "an inheritance loop": ("g, teacher, owner", "would inherit each other"),
    "a negation that opens, in an allow row": (
        "p, student, *, material, read, !locked, allow",
        "negates `locked` in an allow row",
    ),
}
"""Leaks that no policy can have: it is refused when it is loaded."""


def leaking(leak: Leak) -> CompiledPolicy:
    """The shipped policy with the leak."""
    text = DEFAULT
    if leak.replaced is not None:
        assert leak.replaced[0] + "\n" in text
        text = text.replace(leak.replaced[0] + "\n", leak.replaced[1] + "\n")
    return compiled(f"{text}{leak.rows}\n")
