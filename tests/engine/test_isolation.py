"""Courses are isolated: properties over random campuses, rules, shares, ids and stated scopes."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from authz.domain.decisions import Question
from authz.domain.entities import (
    KINDS,
    Course,
    CourseState,
    Entity,
    Membership,
    MembershipStatus,
    PolicyActivation,
    PolicyVersion,
    Resource,
    Session,
    SessionKey,
    SessionState,
    Share,
    ShareLevel,
    Visibility,
)
from authz.domain.errors import InvalidArgumentError
from authz.domain.files import FORMAT, files_digest
from authz.domain.ids import (
    PLATFORM,
    ResourceRef,
    Scope,
    ScopeKind,
    Subject,
    SubjectType,
    course_scope,
    session_scope,
)
from authz.domain.mutations import Mutation, Operation
from authz.domain.origin import Origin
from authz.engine.check import Checker
from authz.policy.compile import CompiledPolicy
from authz.policy.course import COURSE_FILE, course_files, load_course_policy
from authz.policy.load import POLICY_FILE, policy_directory
from authz.replica.caches import Caches
from authz.replica.environment import acquire_environment, release_environment
from authz.replica.generations import build_replica
from authz.replica.snapshot import ReplicaSnapshot
from authz.store import open_store
from tests.engine.campus import Campus
from tests.facts import FLAGS
from tests.policies import POLICY, compiled
from tests.properties import examples
from tests.store.directory import dumped
from tests.tokens import keys_of

IDS = ["teacher", "owner", "course:a", "a", "a|b", "session:a", "platform", "user:teacher", "=", "-"]
TYPES = ["notebook", "message", "material", "session_note"]
COURSES = ["a", "course:a", "teacher"]
SESSIONS = ["a", "s", "session:a"]
NOW = 1_000_000

instants = st.none() | st.integers(NOW - 5, NOW + 5)
subjects = st.builds(Subject, st.sampled_from(SubjectType), st.sampled_from(IDS))
scopes = st.one_of(st.sampled_from(COURSES).map(course_scope), st.sampled_from(SESSIONS).map(session_scope))
refs = st.builds(ResourceRef, st.sampled_from(TYPES), st.sampled_from(IDS[:4]))


@st.composite
def memberships(draw: st.DrawFn) -> Membership:
    scope = draw(scopes | st.just(PLATFORM))
    roles = [r.name for r in POLICY.vocabulary.roles.values() if r.scope_kind is scope.kind]
    return Membership(
        subject=draw(subjects),
        scope=scope,
        role=draw(st.sampled_from(roles)),
        status=draw(st.sampled_from(MembershipStatus)),
        starts_at=draw(instants),
        ends_at=draw(instants),
        suspended_until=draw(st.none() | instants),
    )


resources = st.builds(
    Resource,
    type=st.sampled_from(TYPES),
    id=st.sampled_from(IDS[:4]),
    scope=scopes,
    owner=st.none() | subjects,
    visibility=st.sampled_from(Visibility),
    available_from=instants,
    available_until=instants,
    created_at=instants,
    **FLAGS,
)
courses = st.builds(
    Course,
    id=st.sampled_from(COURSES),
    state=st.sampled_from(CourseState),
    ai_enabled=st.booleans(),
    edit_window_us=st.integers(0, 6),
)
sessions = st.builds(
    Session,
    id=st.sampled_from(SESSIONS),
    course_id=st.none() | st.sampled_from(COURSES),
    state=st.sampled_from(SessionState),
    open_to_course=st.booleans(),
)
shares = st.builds(Share, resource=refs, subject=subjects, level=st.sampled_from(ShareLevel))


OWN_ROWS = [
    "*, {}, session, read, , allow",
    "*, {}, material, read, , allow",
    "guest, {}, notebook, update, own, allow",
    "student, {}, notebook, read, !own, deny",
    "*, {}, message, read, !shared_view, deny",
]
"""Of nothing that the default policy locks."""
own_rows = st.lists(st.sampled_from(OWN_ROWS), max_size=3, unique=True)


def rows_of(course_id: str, *rows: str) -> str:
    return "".join(f"p, {row.format(course_scope(course_id))}\n" for row in rows)


def own_policy(course_id: str, *rows: str) -> list[Entity]:
    """The policy of a course, active."""
    scope, files = course_scope(course_id), course_files(rows_of(course_id, *rows))
    version = PolicyVersion(scope=scope, number=7, digest=files_digest(files), files=files, format=FORMAT)
    return [version, PolicyActivation(scope=scope, number=7, digest=version.digest)]


@st.composite
def campuses(draw: st.DrawFn) -> list[Entity]:
    groups = (
        draw(st.lists(courses, min_size=1, max_size=3)),
        draw(st.lists(sessions, max_size=3)),
        draw(st.lists(memberships(), max_size=8)),
        draw(st.lists(resources, min_size=1, max_size=5)),
        draw(st.lists(shares, max_size=4)),
    )
    course_id = groups[0][0].id
    own = own_policy(course_id, *draw(own_rows)) if draw(st.booleans()) else []
    return [entity for group in (*groups, own) for entity in group]


def may_be_registered(resource: Resource, campus: list[Entity]) -> bool:
    """Whether the directory would take it, and so a request may describe it."""
    kind, session = KINDS["resource"], SessionKey(resource.scope.id)
    try:
        kind.validate(resource, POLICY.vocabulary)
        for entity in campus:
            if resource.scope.kind is ScopeKind.SESSION and entity.key == session:
                kind.validate_container(resource, entity)
    except InvalidArgumentError:
        return False
    return True


@st.composite
def questions(draw: st.DrawFn, campus: list[Entity]) -> Question:
    ref = draw(refs)
    known = [e.key for e in campus if isinstance(e, Resource)]
    if draw(st.integers(0, 3)) and known:
        ref = draw(st.sampled_from(known))
    action = draw(st.sampled_from(POLICY.vocabulary.types[ref.type].actions))
    members = [e.subject for e in campus if isinstance(e, Membership)]
    inline = draw(st.none() | resources.filter(lambda resource: may_be_registered(resource, campus)))
    return Question(
        subject=draw(st.sampled_from(members) | subjects if members else subjects),
        action=action,
        resource=ResourceRef(ref.type, "" if action == "create" else ref.id),
        stated_course_id=draw(st.sampled_from(COURSES))
        if action == "create"
        else draw(st.none() | st.sampled_from(COURSES)),
        stated_session_id=draw(st.none() | st.sampled_from(SESSIONS)),
        inline=inline,
        purpose=draw(st.sampled_from(["", "", "ai_response", "training"])),
    )


def generous_policy() -> CompiledPolicy:
    """The declarations of the default policy, with a rule that allows everything to every role."""
    text = (policy_directory() / POLICY_FILE).read_text()
    kept = [line for line in text.splitlines() if not line.startswith("p,")]
    return compiled("\n".join([*kept, "p, *, *, *, *, , allow"]) + "\n")


GENEROUS = generous_policy()
CHECKERS = [
    Checker(policy, inline_types=inline)
    for policy in (POLICY, GENEROUS)
    for inline in (frozenset[str](), frozenset(TYPES))
]


def own_scopes(campus: Campus, question: Question, *, inline: bool) -> set[Scope]:
    """The course and session that the question is really about."""
    if question.action == "create":
        scope = (
            course_scope(question.stated_course_id or "")
            if question.stated_session_id is None
            else session_scope(question.stated_session_id)
        )
    else:
        resource = campus.registered(question.resource)
        if resource is None and inline:
            resource = question.inline
        if resource is None:
            return set()
        scope = resource.scope
    place = campus.scope(scope)
    return {scope} if place is None else {scope, *place.scopes} - {PLATFORM}


@examples(200)
@given(st.data())
def test_nobody_gets_into_content_without_a_membership_in_its_own_course_or_session(
    data: st.DataObject,
) -> None:
    entities = data.draw(campuses())
    campus = Campus(entities)
    question = data.draw(questions(entities))
    for number, checker in enumerate(CHECKERS):
        decision = checker.check(campus, question, NOW)
        places = own_scopes(campus, question, inline=number % 2 == 1)
        if not campus.memberships_in(question.subject, list(places)):
            assert not decision.allowed


@examples(100)
@given(st.data())
def test_the_policy_of_a_course_decides_as_an_override_of_it_and_changes_nothing_elsewhere(
    data: st.DataObject,
) -> None:
    drawn = data.draw(campuses())
    entities: list[Entity] = [
        each for each in drawn if not isinstance(each, PolicyVersion | PolicyActivation)
    ]
    course_id, rows = data.draw(st.sampled_from(COURSES)), data.draw(own_rows)
    question = data.draw(questions(entities))
    campus = Campus(entities)
    for policy in (POLICY, GENEROUS):
        override = load_course_policy(policy, course_id, {COURSE_FILE: rows_of(course_id, *rows)})
        plain, overridden = (Checker(each, inline_types=frozenset(TYPES)) for each in (policy, override))
        before, expected = (checker.check(campus, question, NOW) for checker in (plain, overridden))
        decision = plain.check(Campus([*entities, *own_policy(course_id, *rows)]), question, NOW)
        if decision.course_policy_version:
            assert decision.course_policy_version == "7"
            assert course_scope(course_id) in own_scopes(campus, question, inline=True)
            assert decision.verdict == expected.verdict
        else:
            assert decision == before == expected
        if not campus.memberships_in(question.subject, list(own_scopes(campus, question, inline=True))):
            assert not decision.allowed


@examples(150)
@given(st.data())
def test_stating_a_course_or_session_never_turns_a_denial_into_an_allow(data: st.DataObject) -> None:
    entities = data.draw(campuses())
    campus = Campus(entities)
    stated = data.draw(questions(entities))
    if stated.action == "create":
        return
    plain = Question(
        subject=stated.subject,
        action=stated.action,
        resource=stated.resource,
        inline=stated.inline,
        purpose=stated.purpose,
    )
    for checker in CHECKERS:
        if checker.check(campus, stated, NOW).allowed:
            assert checker.check(campus, plain, NOW).allowed


@examples(150)
@given(st.data())
def test_an_answer_holds_until_its_valid_until(data: st.DataObject) -> None:
    entities = data.draw(campuses())
    campus = Campus(entities)
    question = data.draw(questions(entities))
    for checker in CHECKERS:
        first = checker.check(campus, question, NOW)
        for later in range(NOW + 1, NOW + 15):
            if first.valid_until is not None and later >= first.valid_until:
                break
            then = checker.check(campus, question, later)
            assert (then.allowed, then.reason, then.rule) == (first.allowed, first.reason, first.rule)


@examples(75)
@given(st.data())
def test_listed_actions_are_those_that_check_allows(data: st.DataObject) -> None:
    entities = data.draw(campuses())
    campus = Campus(entities)
    asked = data.draw(questions(entities))
    for checker in CHECKERS:
        for action, decision in checker.list_actions(campus, asked, NOW).items():
            alone = Question(
                subject=asked.subject,
                action=action,
                resource=asked.resource,
                stated_course_id=asked.stated_course_id,
                stated_session_id=asked.stated_session_id,
                inline=asked.inline,
                purpose=asked.purpose,
            )
            assert checker.check(campus, alone, NOW) == decision


@settings(examples(25), suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_nobody_gets_in_through_what_postgresql_holds(data: st.DataObject, postgresql_url: str) -> None:
    """From a real PostgreSQL to a replica built from it; what is written before stays, as in service."""
    store = open_store(postgresql_url, vocabularies=lambda *_: POLICY.vocabulary, clock=lambda: NOW)
    mutations = [Mutation(Operation.TOUCH, entity) for entity in data.draw(campuses())]
    with tempfile.TemporaryDirectory() as name:
        try:
            store.directory.import_batch(mutations, offset=0, origin=Origin(""))
            with store.directory.dump() as dump:
                build_replica(Path(name), dump, max_bytes=1 << 28)
            with store.directory.dump() as dump:
                campus = Campus(dumped(dump))
        finally:
            store.close()
        environment = acquire_environment(Path(name), max_bytes=1 << 28)
        try:
            snapshot = ReplicaSnapshot(environment, "built", keys_of("built"), Caches())
            for _ in range(5):
                question = data.draw(questions(list(campus.entities)))
                for number, checker in enumerate(CHECKERS):
                    decision = checker.check(snapshot, question, NOW)
                    assert decision.verdict == checker.check(campus, question, NOW).verdict
                    scopes = own_scopes(campus, question, inline=number % 2 == 1)
                    if not campus.memberships_in(question.subject, list(scopes)):
                        assert not decision.allowed
        finally:
            release_environment(environment)
