"""A preview says exactly what Check would answer otherwise: held to it on random campuses and policies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.domain.decisions import Question, Verdict
from authz.domain.entities import Course, CourseState, Entity, Membership, Resource, Session, Visibility
from authz.domain.errors import InvalidArgumentError
from authz.domain.files import read_files
from authz.domain.ids import PLATFORM, ResourceRef, Scope, ScopeKind, Subject, course_scope, session_scope
from authz.domain.impact import AccessKind, Example, Impact, PreviewProgress, PreviewTotals
from authz.domain.ports import Snapshot
from authz.engine.check import Checker
from authz.engine.preview.computation import Preview
from authz.policy.compile import CompiledPolicy
from authz.policy.course import load_course_policy
from tests.engine.campus import Campus
from tests.engine.generators import (
    NOW,
    PEOPLE,
    SOON,
    TEXT,
    Pairs,
    campuses,
    compiled,
    edits,
    own_policy,
    own_rules,
    pairs,
)
from tests.policies import POLICY
from tests.properties import examples
from tests.store.directory import user

Change: TypeAlias = tuple[Subject, Scope, AccessKind]


def questions(
    entities: Iterable[Entity], policies: Iterable[CompiledPolicy]
) -> Iterator[tuple[Example, str]]:
    """Everything registered that can be asked about, and each place where something can be created."""
    types = {name: set[str]() for policy in policies for name in policy.vocabulary.types}
    for policy in policies:
        for name, declared in policy.vocabulary.types.items():
            types[name] |= set(declared.actions)
    found = [Example(e.key, e.scope) for e in entities if isinstance(e, Resource)]
    found.append(Example(ResourceRef("api", "api"), PLATFORM))
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
        for type_name in types.keys() - {"api"}:
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
    people: Iterable[Subject], before: tuple[Campus, Checker], after: tuple[Campus, Checker]
) -> dict[Change, set[Example]]:
    """By asking Check about every subject, action, resource and purpose."""
    campus = before[0]
    asked = [
        (example, action, place)
        for example, action in questions(campus.entities, [before[1].policy, after[1].policy])
        if (place := place_of(campus, example.scope)) is not None
    ]
    found: dict[Change, set[Example]] = {}
    for subject in people:
        for example, action, place in asked:
            by_gain: dict[bool, list[str]] = {}
            for purpose in ("", "ai_response"):
                was, will = (
                    (v := verdict(checker, seen, subject, example, action, purpose)) is not None and v.allowed
                    for seen, checker in (before, after)
                )
                if was != will:
                    by_gain.setdefault(will, []).append(purpose)
            for gains, purposes in by_gain.items():
                kind = AccessKind(example.resource.type, action, tuple(purposes), gains)
                found.setdefault((subject, place, kind), set()).add(example)
    return found


def previewed(
    campus: Snapshot,
    before: Checker,
    after: Checker,
    max_examples: int = 100,
    in_course: tuple[str, CompiledPolicy] | None = None,
) -> tuple[list[Impact], PreviewTotals]:
    preview = Preview(
        campus,
        before,
        after,
        NOW,
        max_examples=max_examples,
        max_largest=5,
        in_course=in_course,
    )
    *found, totals = [event for event in preview.events() if event is not None]
    assert isinstance(totals, PreviewTotals)
    rows = [event for event in found if not isinstance(event, PreviewProgress)]
    assert all(isinstance(row, Impact) for row in rows)
    return [row for row in rows if isinstance(row, Impact)], totals


def checker_of(policy: CompiledPolicy) -> Checker:
    return Checker(policy)


def with_row(row: str) -> Checker:
    """The shipped policy with a row more."""
    return checker_of(compiled([*TEXT.splitlines(), row]))


@examples(40)
@given(campuses(), pairs, st.data())
def test_a_preview_is_exact(entities: list[Entity], about: Pairs, data: st.DataObject) -> None:
    (old, _), (new, _) = data.draw(edits(about)), data.draw(edits(about))
    campus = Campus([*entities, *own_policy(data.draw(own_rules(about)), old, new)])
    before, after = (campus, checker_of(old)), (campus, checker_of(new))
    rows, totals = previewed(campus, before[1], after[1])
    require_exact(rows, before, after)
    require_totals(totals, rows)
    assert totals.members == campus.count_members()


@examples(20)
@given(campuses(), pairs, st.data())
def test_a_preview_of_the_policy_of_a_course_is_exact(
    entities: list[Entity], about: Pairs, data: st.DataObject
) -> None:
    platform, _ = data.draw(edits(about))
    checker = checker_of(platform)
    version, activation = own_policy(data.draw(own_rules(about)), platform)
    before = Campus([*entities, *own_policy(data.draw(own_rules(about)), platform)]), checker
    after = Campus([*entities, version, activation]), checker
    override = load_course_policy(platform, "a", read_files(version.files))
    rows, totals = previewed(before[0], checker, checker, in_course=("a", override))
    require_exact(rows, before, after)
    require_totals(totals, rows)


def require_exact(rows: list[Impact], before: tuple[Campus, Checker], after: tuple[Campus, Checker]) -> None:
    """What Check answers otherwise, and nothing else, with the verdicts that it gives."""
    found: dict[Change, set[Example]] = {}
    for row in rows:
        for subject in row.subjects:
            for change in row.changes:
                assert (subject, row.scope, change.kind) not in found
                assert change.count == len(change.examples)
                purpose, first = change.kind.purposes[0], change.examples[0]
                for (campus, checker), told in ((before, change.before), (after, change.after)):
                    asked = verdict(checker, campus, subject, first, change.kind.action, purpose)
                    assert (told and told.allowed) == (asked and asked.allowed)
                    if not belongs(campus, first, subject):
                        assert told == asked
                found[subject, row.scope, change.kind] = set(change.examples)
    assert found == differences(PEOPLE, before, after)


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
    Membership(subject=ADA, scope=PLATFORM, role="operator"),
    Membership(subject=ADA, scope=HERE, role="auditor"),
    Membership(subject=OMAR, scope=INSIDE, role="guest"),
    Resource(type="message", id="soon", scope=INSIDE, owner=OMAR, created_at=SOON),
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
            ("user:maya course:b loses create on notebook: a new notebook in course:b",),
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
                "user:ada course:a gains create on session: a new session in course:a",
                "user:ada course:b gains create on session: a new session in course:b",
                "user:ada platform gains create on session: a new session in platform",
            ),
        ),
        ("p, alumni, *, notebook, delete, , allow", ()),
        (
            "p, operator, *, api, watch, , deny",
            ("user:ada platform loses watch on api: api:api",),
        ),
    ],
)
def test_who_gains_and_who_loses_is_told_in_words(row: str, told: tuple[str, ...]) -> None:
    campus = Campus([*SMALL, Resource(type="material", id="t", scope=HERE)])
    rows, _ = previewed(campus, checker_of(POLICY), with_row(row))
    found = [
        f"{subject} {impact.scope} {change.kind}: {', '.join(sorted(map(str, change.examples)))}"
        for impact in rows
        for subject in impact.subjects
        for change in impact.changes
    ]
    assert sorted(found) == sorted(told)


def test_a_preview_names_as_many_examples_as_are_wanted_and_counts_the_rest() -> None:
    many = [Resource(type="material", id=f"m{n}", scope=HERE) for n in range(9)]
    after = with_row("p, student, *, material, read, , allow")
    rows, totals = previewed(Campus([*SMALL, *many]), checker_of(POLICY), after, max_examples=2)
    ((change,),) = (row.changes for row in rows)
    assert (change.count, [str(example) for example in change.examples]) == (
        9,
        ["material:m0", "material:m1"],
    )
    assert [(each.subjects, each.count) for each in totals.kinds] == [(1, 9)]


@pytest.mark.parametrize(
    "other",
    [
        TEXT.replace("share|export|", "share|export|pin|") + "p, student, *, notebook, pin, , allow\n",
        "".join(line for line in TEXT.splitlines(keepends=True) if ", guest," not in line),
    ],
    ids=["another-action", "a-role-less"],
)
@pytest.mark.parametrize("comes", [True, False], ids=["comes", "goes"])
def test_a_preview_of_other_declarations_says_what_check_answers_without_a_rule(
    other: str, *, comes: bool
) -> None:
    campus = Campus(SMALL)
    policies = [checker_of(POLICY), checker_of(compiled(other.splitlines()))]
    before, after = policies if comes else reversed(policies)
    rows, _ = previewed(campus, before, after)
    assert rows
    require_exact(rows, (campus, before), (campus, after))
