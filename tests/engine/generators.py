"""Random campuses and policies, which have much to do with each other."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import NamedTuple, TypeAlias, TypeVar

import msgspec
from hypothesis import strategies as st

from authz.domain.entities import (
    Account,
    AccountStatus,
    Course,
    CourseState,
    Entity,
    Membership,
    MembershipStatus,
    PolicyActivation,
    PolicyVersion,
    Resource,
    Session,
    SessionState,
    Share,
    ShareLevel,
    Visibility,
)
from authz.domain.errors import PolicyError
from authz.domain.facts import CREATED_AHEAD_US
from authz.domain.files import FORMAT, files_digest
from authz.domain.ids import PLATFORM, ResourceRef, ScopeKind, course_scope, session_scope
from authz.policy.compile import CompiledPolicy
from authz.policy.course import COURSE_FILE, course_files, load_course_policy
from authz.policy.load import MODEL_FILE, POLICY_FILE, compile_files, policy_directory
from tests.facts import FLAGS
from tests.policies import POLICY
from tests.store.directory import user

logging.getLogger("casbin").setLevel(logging.CRITICAL)

MODEL = (policy_directory() / MODEL_FILE).read_text()
NOW = 1_000
SOON = NOW + CREATED_AHEAD_US
"""What is created now by a clock that is ahead as far as one may be."""
TEXT = (policy_directory() / POLICY_FILE).read_text()
ON_PLATFORM = ["platform_admin", "operator"]
LINES = [  # without the rights of other callers, who would be most of the policy
    line
    for line in TEXT.splitlines()
    if ", api, " not in line or not line.startswith("p,") or line.split(", ")[1] in ON_PLATFORM
]
RULES = [line for line in LINES if line.startswith(("p,", "g,"))]
ROLES = [
    role.name for role in POLICY.vocabulary.roles.values() if role.scope_kind is not ScopeKind.PLATFORM
] + [*ON_PLATFORM, "*"]
CONTENT = [
    (t.name, action)
    for t in POLICY.vocabulary.types.values()
    if t.name not in {"api", "course", "session"}
    for action in (*t.actions, "*")
]
STRUCTURE = [
    (name, action) for name in ("course", "session") for action in POLICY.vocabulary.types[name].actions
]
CALLS = [("api", action) for action in ("check", "explain", "grant_roles", "*")]
DECLARED = [
    ("role, student, course, 20, no, alumni", "role, student, course, 20, yes,"),
    ("role, auditor, course, 15, no,", "role, auditor, course, 15, yes, alumni"),
    ("role, guest, session, 10, no,", "role, guest, session, 10, yes,"),
    ("type, notebook, create|read|", "type, notebook, create|read|print|"),
    ("|moderate|ai_process", "|ai_process"),  # of message
    ("role, guest, session, 10, no,\n", ""),
    ("g, owner, teacher", ""),
]
CONDITIONS = {
    "allow": [
        "",
        "own",
        "shared_view",
        "published",
        "attending",
        "session_visible & attending",
        "within_edit_window",
        "course_visible & locked",
    ],
    "deny": [
        "",
        "own",
        "!own & !shared_view",
        "!published",
        "shared_edit & !locked",
        "!attending",
        "ai_enabled",
    ],
}
T = TypeVar("T")

Pairs: TypeAlias = list[tuple[str, str]]

# Few types and actions for all policies of an example, so that their rows have to do with each other.
pairs = st.lists(
    st.sampled_from([CONTENT, CONTENT, STRUCTURE, CALLS]).flatmap(st.sampled_from),
    min_size=3,
    max_size=6,
    unique=True,
)


@st.composite
def rules(draw: st.DrawFn, about: Pairs, scopes: tuple[str, ...] = ("*", "*", "course:a")) -> str:
    """A row that a policy may have."""
    type_name, action = draw(st.sampled_from(about))
    effect = draw(st.sampled_from(["allow", "allow", "deny"]))
    if type_name == "api":
        return f"p, {draw(st.sampled_from(ON_PLATFORM))}, *, api, {action}, , {effect}"
    condition = draw(st.sampled_from(CONDITIONS[effect]))
    if (type_name, action) not in CONTENT or action == "create":
        condition = "attending" if "attending" in condition and type_name == "session" else ""
    return (
        f"p, {draw(st.sampled_from(ROLES))}, {draw(st.sampled_from(scopes))}, {type_name}, {action},"
        f" {condition}, {effect}"
    )


class Edited(NamedTuple):
    """A policy, and the lines of its file."""

    policy: CompiledPolicy
    lines: list[str]


@st.composite
def edits(draw: st.DrawFn, about: Pairs) -> Edited:
    """The default policy with rows fewer and more, and at times with other declarations."""
    gone = draw(st.sets(st.sampled_from(RULES), max_size=6))
    added = draw(st.lists(rules(about), min_size=3, max_size=8))
    text = "\n".join([*(line for line in LINES if line not in gone), *added])
    for old, new in draw(st.sets(st.sampled_from(DECLARED), max_size=2)):
        text = text.replace(old, new)
    lines = list(dict.fromkeys(f"{text}\n".splitlines()))  # a row that repeats another is refused
    try:
        return Edited(compiled(lines), lines)
    except PolicyError as error:  # rows that can never match, or speak of what is not declared any more
        refused = {fault.line for fault in error.faults}
        lines = [line for number, line in enumerate(lines, 1) if number not in refused]
        return Edited(compiled(lines), lines)


@st.composite
def own_rules(draw: st.DrawFn, about: Pairs) -> list[str]:
    """Rows for the policy of course a, if any of these may be in one."""
    return draw(st.lists(rules(about, ("course:a",)), max_size=4, unique=True))


def compiled(lines: Iterable[str]) -> CompiledPolicy:
    return compile_files({POLICY_FILE: "\n".join(lines) + "\n", MODEL_FILE: MODEL})


PEOPLE = [user(name) for name in ("maya", "noor", "omar", "priya", "quinn")]
NOOR, QUINN = PEOPLE[1], PEOPLE[4]
SCOPES = [course_scope("a"), course_scope("b"), *(session_scope(name) for name in ("in-a", "in-b", "alone"))]
near = st.integers(NOW - 3, NOW + 3)


def mostly(usual: T, others: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    return st.one_of(st.just(usual), st.just(usual), others)


@st.composite
def members(draw: st.DrawFn) -> Membership:
    scope = draw(st.sampled_from([*SCOPES[:3], *SCOPES, PLATFORM, PLATFORM]))
    roles = [role for role in ROLES if role != "*" and POLICY.vocabulary.roles[role].scope_kind is scope.kind]
    return Membership(
        subject=draw(st.sampled_from(PEOPLE)),
        scope=scope,
        role=draw(st.sampled_from(roles)),
        status=draw(mostly(MembershipStatus.ACTIVE, st.sampled_from(MembershipStatus))),
        starts_at=draw(mostly(None, near)),
        ends_at=draw(mostly(None, near)),
        suspended_until=draw(mostly(None, near)),
    )


states = mostly(CourseState.ACTIVE, st.sampled_from(CourseState))
sessions = st.builds(
    Session,
    id=st.just(""),
    state=st.sampled_from(SessionState),
    open_to_course=st.booleans(),
)
contents = st.builds(
    Resource,
    type=st.sampled_from(["notebook", "message", "material", "session_note"]),
    id=st.sampled_from(["1", "2", "3"]),
    scope=st.sampled_from(SCOPES),
    owner=st.none() | st.sampled_from(PEOPLE),
    visibility=st.sampled_from(Visibility),
    available_from=mostly(None, near),
    available_until=mostly(None, near),
    created_at=st.none() | st.integers(NOW - 6, NOW + 6) | st.integers(SOON - 6, SOON + 6),
    **FLAGS,
)


@st.composite
def campuses(draw: st.DrawFn) -> list[Entity]:
    """Two courses with a session each, a session alone, and a few people who hold much in them.

    Quinn is in a course and twice on the platform, noor in a course and its session. A message of noor,
    which is also shared with noor, was created in the future, by the clock of the service that registered it.
    """
    found: list[Entity] = [
        *(Membership(subject=QUINN, scope=PLATFORM, role=role) for role in ON_PLATFORM),
        Membership(subject=QUINN, scope=SCOPES[0], role="auditor"),
        Membership(subject=NOOR, scope=SCOPES[0], role="student"),
        Membership(subject=NOOR, scope=SCOPES[2], role="attendee"),
        Resource(
            type="message",
            id="ahead",
            scope=draw(st.sampled_from(SCOPES)),
            owner=NOOR,
            visibility=Visibility.SESSION,
            created_at=draw(st.integers(SOON - 3, SOON + 1)),
        ),
    ]
    found.append(Share(resource=ResourceRef("message", "ahead"), subject=NOOR, level=ShareLevel.EDITOR))
    found += [
        Course(
            id=id_, state=draw(states), ai_enabled=draw(st.booleans()), edit_window_us=draw(st.integers(0, 8))
        )
        for id_ in ("a", "b")
    ]
    for id_, course_id in (("in-a", "a"), ("in-b", "b"), ("alone", None)):
        found.append(msgspec.structs.replace(draw(sessions), id=id_, course_id=course_id))
    found += draw(st.lists(members(), min_size=8, max_size=20))
    resources = draw(st.lists(contents, min_size=6, max_size=14))
    shared = st.builds(
        Share,
        resource=st.sampled_from([resource.key for resource in resources]),
        subject=st.sampled_from(PEOPLE),
        level=st.sampled_from(ShareLevel),
    )
    accounts = st.builds(
        Account,
        subject=st.sampled_from(PEOPLE),
        status=st.just(AccountStatus.SUSPENDED),
        suspended_until=st.none() | near,
    )
    return [*found, *resources, *draw(st.lists(shared, max_size=6)), *draw(mostly([], st.lists(accounts)))]


def own_policy(rows: Iterable[str], *platforms: CompiledPolicy) -> tuple[PolicyVersion, PolicyActivation]:
    """A policy of course a, active: of the rows those that pass under each policy of the platform."""
    kept: list[str] = []
    for row in rows:
        try:
            for platform in platforms:
                load_course_policy(platform, "a", {COURSE_FILE: "".join([*kept, f"{row}\n"])})
        except PolicyError:
            continue
        kept.append(f"{row}\n")
    files = course_files("".join(kept))
    version = PolicyVersion(scope=SCOPES[0], number=7, digest=files_digest(files), files=files, format=FORMAT)
    return version, PolicyActivation(scope=SCOPES[0], number=7, digest=version.digest)
