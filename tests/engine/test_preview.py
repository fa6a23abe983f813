"""A preview says exactly what Check would answer otherwise: held to it on random campuses and policies."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeAlias, TypeVar

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from authz.domain.decisions import Question, Verdict
from authz.domain.entities import (
    Account,
    AccountStatus,
    Course,
    CourseState,
    Entity,
    Membership,
    MembershipStatus,
    Resource,
    Session,
    SessionState,
    Share,
    ShareLevel,
    Visibility,
)
from authz.domain.errors import InvalidArgumentError, PolicyError
from authz.domain.ids import PLATFORM, ResourceRef, Scope, ScopeKind, Subject, course_scope, session_scope
from authz.domain.impact import AccessKind, Example, Impact, PreviewProgress, PreviewTotals
from authz.domain.ports import Snapshot
from authz.engine.check import Checker
from authz.engine.preview import Preview
from authz.policy.compile import CompiledPolicy
from authz.policy.load import POLICY_FILE, load_policy, policy_directory
from tests.engine.campus import Campus
from tests.policy.test_prove import written
from tests.properties import examples
from tests.store.directory import user

logging.getLogger("casbin").setLevel(logging.CRITICAL)

DEFAULT = load_policy(policy_directory())
NOW = 1_000
TEXT = (policy_directory() / POLICY_FILE).read_text()
LINES = TEXT.splitlines()
RULES = [line for line in LINES if line.startswith(("p,", "g,"))]
ROLES = [*DEFAULT.vocabulary.roles, "*"]
PAIRS = [
    (t.name, action)
    for t in DEFAULT.vocabulary.types.values()
    if t.name != "api"
    for action in (*t.actions, "*")
]
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
AHEAD_US = 3
T = TypeVar("T")

Change: TypeAlias = tuple[Subject, Scope, AccessKind]


@st.composite
def edits(draw: st.DrawFn) -> str:
    """The default policy with rows fewer and more, and at times with other declarations."""
    gone = draw(st.sets(st.sampled_from(RULES), max_size=6))
    text = "\n".join(line for line in LINES if line not in gone) + "\n"
    for _ in range(draw(st.integers(3, 8))):
        effect = draw(st.sampled_from(["allow", "allow", "deny"]))
        type_name, action = draw(st.sampled_from(PAIRS))
        scope = draw(st.sampled_from(["*", "*", "course:a"]))
        # Of a course, a session or what is to be created these facts never hold: such a row is refused.
        bare = type_name in ("course", "session") or action == "create"
        condition = "" if bare else draw(st.sampled_from(CONDITIONS[effect]))
        role = draw(st.sampled_from(ROLES))
        text += f"p, {role}, {scope}, {type_name}, {action}, {condition}, {effect}\n"
    for old, new in draw(st.sets(st.sampled_from(DECLARED), max_size=2)):
        text = text.replace(old, new)
    gone_role, gone_action = "role, guest," not in text, "|moderate|ai_process" not in text
    return "".join(
        f"{line}\n"
        for line in dict.fromkeys(text.splitlines())  # a row that repeats another is refused
        if not (gone_role and line.startswith("p, guest,"))
        and not (gone_action and "message, moderate" in line)
    )


PEOPLE = [user(name) for name in ("maya", "noor", "omar", "priya", "quinn")]
SCOPES = [course_scope("a"), course_scope("b"), *(session_scope(name) for name in ("in-a", "in-b", "alone"))]
near = st.integers(NOW - 3, NOW + 3)


def mostly(usual: T, others: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    return st.one_of(st.just(usual), st.just(usual), others)


@st.composite
def members(draw: st.DrawFn) -> Membership:
    scope = draw(st.sampled_from([*SCOPES[:3], *SCOPES, PLATFORM]))
    roles = [role.name for role in DEFAULT.vocabulary.roles.values() if role.scope_kind is scope.kind]
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
    published=st.booleans(),
    available_from=mostly(None, near),
    available_until=mostly(None, near),
    created_at=st.none() | st.integers(NOW - 6, NOW + 6),
    locked=st.booleans(),
    ai_allowed=st.booleans(),
)


@st.composite
def campuses(draw: st.DrawFn) -> list[Entity]:
    """Two courses with a session each, a session alone, and a few people who hold much in them."""
    found: list[Entity] = [
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


def questions(
    entities: Iterable[Entity], policies: Iterable[CompiledPolicy]
) -> Iterator[tuple[Example, str]]:
    """Everything registered that can be asked about, and each place where something can be created."""
    types = {name: set[str]() for policy in policies for name in policy.vocabulary.types}
    for policy in policies:
        for name, declared in policy.vocabulary.types.items():
            types[name] |= set(declared.actions)
    found = [Example(e.key, e.scope) for e in entities if isinstance(e, Resource)]
    scopes = [PLATFORM]
    for each in entities:
        if isinstance(each, Course | Session):
            kind = "course" if isinstance(each, Course) else "session"
            scope = course_scope(each.id) if isinstance(each, Course) else session_scope(each.id)
            found.append(Example(ResourceRef(kind, each.id), scope))
            scopes.append(scope)
    for example in dict.fromkeys(found):
        for action in types[example.resource.type] - {"create"}:
            yield example, action
    for scope in dict.fromkeys(scopes):
        for type_name in types:
            if (
                (type_name != "course" or scope == PLATFORM)
                and (type_name != "session" or scope.kind is not ScopeKind.SESSION)
                and (type_name in ("course", "session") or scope != PLATFORM)
            ):
                yield Example(ResourceRef(type_name, ""), scope), "create"


def verdict(  # noqa: PLR0917  the parts of a question
    checker: Checker, campus: Snapshot, subject: Subject, example: Example, action: str, purpose: str
) -> Verdict | None:
    """What Check answers; None if it refuses the question."""
    creates = action == "create"
    question = Question(
        subject,
        action,
        example.resource,
        stated_course_id=example.scope.id if creates and example.scope.kind is ScopeKind.COURSE else None,
        stated_session_id=example.scope.id if creates and example.scope.kind is ScopeKind.SESSION else None,
        purpose=purpose,
    )
    try:
        return checker.check(campus, question, NOW).verdict
    except InvalidArgumentError:
        return None


def place_of(campus: Snapshot, scope: Scope) -> Scope | None:
    context = campus.scope(scope)
    if context is None:
        return None
    return scope if context.course_id is None else course_scope(context.course_id)


def differences(
    campus: Campus, people: Iterable[Subject], before: Checker, after: Checker
) -> dict[Change, set[Example]]:
    """By asking Check about every subject, action, resource and purpose."""
    asked = [
        (example, action, place)
        for example, action in questions(campus.entities, [before.policy, after.policy])
        if (place := place_of(campus, example.scope)) is not None
    ]
    found: dict[Change, set[Example]] = {}
    for subject in people:
        for example, action, place in asked:
            by_gain: dict[bool, list[str]] = {}
            for purpose in ("", "ai_response"):
                was, will = (
                    (v := verdict(checker, campus, subject, example, action, purpose)) is not None
                    and v.allowed
                    for checker in (before, after)
                )
                if was != will:
                    by_gain.setdefault(will, []).append(purpose)
            for gains, purposes in by_gain.items():
                kind = AccessKind(example.resource.type, action, tuple(purposes), gains)
                found.setdefault((subject, place, kind), set()).add(example)
    return found


def previewed(
    campus: Snapshot, before: Checker, after: Checker, max_examples: int = 100
) -> tuple[list[Impact], PreviewTotals]:
    preview = Preview(
        campus, before, after, NOW, created_ahead_us=AHEAD_US, max_examples=max_examples, max_largest=5
    )
    *found, totals = [event for event in preview.events() if event is not None]
    assert isinstance(totals, PreviewTotals)
    rows = [event for event in found if not isinstance(event, PreviewProgress)]
    assert all(isinstance(row, Impact) for row in rows)
    return [row for row in rows if isinstance(row, Impact)], totals


def checker_of(folder: Path, text: str) -> Checker:
    folder.mkdir(exist_ok=True)
    policy = load_policy(written(folder, text))
    return Checker(policy, inline_types=frozenset(), created_ahead_us=AHEAD_US)


@examples(60)
@given(data=st.data())
def test_a_preview_is_exact(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    entities = data.draw(campuses())
    try:
        before, after = (
            checker_of(tmp_path_factory.mktemp("p"), text)
            for text in (data.draw(edits()), data.draw(edits()))
        )
    except PolicyError:  # a row that can never match
        assume(False)
    campus = Campus(entities)
    expected = differences(campus, PEOPLE, before, after)
    rows, totals = previewed(campus, before, after)
    found: dict[Change, set[Example]] = {}
    for row in rows:
        for subject in row.subjects:
            for change in row.changes:
                assert (subject, row.scope, change.kind) not in found
                assert change.count == len(change.examples)
                purpose, first = change.kind.purposes[0], change.examples[0]
                for checker, told in ((before, change.before), (after, change.after)):
                    asked = verdict(checker, campus, subject, first, change.kind.action, purpose)
                    assert (told and told.allowed) == (asked and asked.allowed)
                    if not belongs(campus, first, subject):
                        assert told == asked
                    found[subject, row.scope, change.kind] = set(change.examples)
    assert found == expected
    require_totals(totals, rows)


def belongs(campus: Campus, example: Example, subject: Subject) -> bool:
    """Whether it is the subject's own, or shared with it: Check may name another rule then."""
    resource = campus.registered(example.resource)
    owns = resource is not None and resource.owner == subject
    return owns or campus.share(example.resource, subject) is not None


def require_totals(totals: PreviewTotals, rows: list[Impact]) -> None:
    """The totals are those of the rows, and the largest are the largest."""
    assert totals.rows == sum(len(row.subjects) for row in rows)
    assert totals.scopes == len({row.scope for row in rows})
    by_kind: dict[AccessKind, list[int]] = {}
    for row in rows:
        for change in row.changes:
            by_kind.setdefault(change.kind, []).extend([change.count] * len(row.subjects))
    assert {each.kind: (each.subjects, each.count) for each in totals.kinds} == {
        kind: (len(counts), sum(counts)) for kind, counts in by_kind.items()
    }
    sizes = sorted((row.size for row in rows for _ in row.subjects), reverse=True)
    assert [row.size for row in totals.largest] == sizes[:5]


HERE, INSIDE = course_scope("a"), session_scope("in-a")
MAYA, ADA, OMAR = user("maya"), user("ada"), user("omar")
SMALL: list[Entity] = [
    Course(id="a", state=CourseState.ACTIVE, edit_window_us=10),
    Session(id="in-a", course_id="a", open_to_course=True),
    Course(id="b", state=CourseState.ACTIVE),
    Membership(subject=MAYA, scope=HERE, role="student"),
    Membership(subject=MAYA, scope=course_scope("b"), role="student"),
    Membership(subject=ADA, scope=PLATFORM, role="platform_admin"),
    Membership(subject=ADA, scope=HERE, role="auditor"),
    Membership(subject=OMAR, scope=INSIDE, role="guest"),
    Resource(type="message", id="soon", scope=INSIDE, owner=OMAR, created_at=NOW + AHEAD_US),
    Resource(type="message", id="old", scope=HERE, owner=MAYA, created_at=NOW - 100),
    Resource(type="notebook", id="n", scope=HERE, owner=MAYA, visibility=Visibility.COURSE),
    Resource(type="notebook", id="m", scope=HERE, owner=OMAR, visibility=Visibility.COURSE),
]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (
            "p, platform_admin, *, course, update, , allow",
            (
                "user:ada course:a gains update on course: course:a",
                "user:ada course:b gains update on course: course:b",
            ),
        ),
        (
            "p, student, *, session, present, attending, allow",
            ("user:maya course:a gains present on session: session:in-a",),
        ),
        (
            "p, guest, *, message, delete, within_edit_window, deny",
            ("user:omar course:a loses delete on message: message:soon",),
        ),
        (
            "p, student, course:b, notebook, create, , deny",
            ("user:maya course:b loses create on notebook: a notebook in course:b",),
        ),
        (
            "p, student, *, notebook, read, !own, deny",
            ("user:maya course:a loses read on notebook: notebook:m",),
        ),
        (
            "p, student, *, material, ai_process, for_ai_response, allow",
            ("user:maya course:a gains ai_process on material for AI responses: material:t",),
        ),
        (
            "p, platform_admin, *, session, create, , allow",
            (
                "user:ada course:a gains create on session: a session in course:a",
                "user:ada course:b gains create on session: a session in course:b",
                "user:ada platform gains create on session: a session in platform",
            ),
        ),
        ("p, alumni, *, notebook, delete, , allow", ()),
    ],
)
def test_who_gains_and_who_loses_is_told_in_words(tmp_path: Path, row: str, told: tuple[str, ...]) -> None:
    campus = Campus([*SMALL, Resource(type="material", id="t", scope=HERE)])
    before, after = checker_of(tmp_path / "before", TEXT), checker_of(tmp_path / "after", f"{TEXT}{row}\n")
    rows, _ = previewed(campus, before, after)
    found = [
        f"{subject} {impact.scope} {change.kind}: {', '.join(sorted(map(str, change.examples)))}"
        for impact in rows
        for subject in impact.subjects
        for change in impact.changes
    ]
    assert sorted(found) == sorted(told)


def test_a_preview_names_as_many_examples_as_are_wanted_and_counts_the_rest(tmp_path: Path) -> None:
    many = [Resource(type="material", id=f"m{n}", scope=HERE) for n in range(9)]
    before = checker_of(tmp_path / "before", TEXT)
    after = checker_of(tmp_path / "after", TEXT + "p, student, *, material, read, , allow\n")
    rows, totals = previewed(Campus([*SMALL, *many]), before, after, max_examples=2)
    ((change,),) = (row.changes for row in rows)
    assert (change.count, [str(example) for example in change.examples]) == (
        9,
        ["material:m0", "material:m1"],
    )
    assert [(each.subjects, each.count) for each in totals.kinds] == [(1, 9)]
