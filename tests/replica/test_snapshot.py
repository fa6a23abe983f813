"""The suite that every snapshot passes: its reads and scans say what the entities of its state say."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given

from authz.domain.context import (
    SCOPE_MISSING,
    ResourceContext,
    ScopeContext,
    resource_context_of,
    scope_context_of,
)
from authz.domain.effective_roles import Grant
from authz.domain.entities import (
    Course,
    CourseKey,
    Entity,
    Membership,
    Resource,
    Session,
    SessionKey,
    Share,
    ShareKey,
    ShareLevel,
)
from authz.domain.ids import PLATFORM, ResourceRef, Scope, ScopeKind, Subject, course_scope, session_scope
from authz.domain.mutations import Mutation, Operation
from authz.domain.ports import Snapshot
from authz.replica.build import build_replica
from authz.replica.caches import Caches
from authz.replica.environment import acquire_environment, release_environment
from authz.replica.snapshot import ReplicaSnapshot
from authz.store import open_store
from tests.databases import create_sqlite
from tests.engine.campus import Campus
from tests.engine.test_isolation import COURSES, DEFAULT, SESSIONS, campuses, refs, subjects
from tests.facts import grant_of
from tests.properties import MEMORY, examples
from tests.replica.conftest import MAX_BYTES
from tests.store.directory import Clock, dumped, user
from tests.tokens import keys_of

T = TypeVar("T")
SCOPES = [PLATFORM, *map(course_scope, COURSES), *map(session_scope, SESSIONS)]


class Truth:
    """What a snapshot of these entities is to say, from the entities alone."""

    def __init__(self, entities: Iterable[Entity]) -> None:
        self.entities = {entity.key: entity for entity in entities}

    def of(self, kind: type[T]) -> list[T]:
        return [entity for entity in self.entities.values() if isinstance(entity, kind)]

    def scope(self, scope: Scope) -> ScopeContext | None:
        if scope.kind is ScopeKind.PLATFORM:
            return scope_context_of(None, None)
        session = self.entities.get(SessionKey(scope.id)) if scope.kind is ScopeKind.SESSION else None
        if scope.kind is ScopeKind.SESSION and not isinstance(session, Session):
            return None
        course_id = session.course_id if isinstance(session, Session) else scope.id
        course = None if course_id is None else self.entities.get(CourseKey(course_id))
        if course_id is not None and not isinstance(course, Course):
            return None
        return scope_context_of(
            course if isinstance(course, Course) else None, session if isinstance(session, Session) else None
        )

    def resource(self, ref: ResourceRef, subject: Subject) -> ResourceContext | None:
        found = self.entities.get(ref)
        if not isinstance(found, Resource):
            return None
        scope = self.scope(found.scope)
        return SCOPE_MISSING if scope is None else resource_context_of(found, scope, subject)

    def grants(self, subject: Subject, scopes: Iterable[Scope]) -> list[Grant]:
        where = set(scopes)
        return [grant_of(m) for m in self.of(Membership) if m.subject == subject and m.scope in where]

    def share(self, ref: ResourceRef, subject: Subject) -> ShareLevel | None:
        found = self.entities.get(ShareKey(ref, subject))
        return found.level if isinstance(found, Share) else None


@contextmanager
def put(entities: list[Entity]) -> Iterator[tuple[Snapshot, Truth]]:
    """A replica into which the entities were put one by one, as a follower puts them."""
    yield Campus(entities), Truth(entities)


@contextmanager
def built(entities: list[Entity]) -> Iterator[tuple[Snapshot, Truth]]:
    """A replica that was built from a database, which holds those of the entities that may be written."""
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        folder = Path(name)
        url = create_sqlite(folder / "authz.db")
        store = open_store(url, vocabularies=lambda *_: DEFAULT.vocabulary, clock=Clock())
        try:
            mutations = [Mutation(Operation.TOUCH, entity) for entity in entities]
            store.directory.import_batch(mutations, offset=0, actor="", request_id="", reason="")
            with store.directory.dump() as dump:
                build_replica(folder / "r", dump, max_bytes=MAX_BYTES)
            with store.directory.dump() as dump:
                truth = Truth(dumped(dump))
        finally:
            store.close()
        environment = acquire_environment(folder / "r", max_bytes=MAX_BYTES)
        try:
            yield ReplicaSnapshot(environment, "built", keys_of("built"), Caches()), truth
        finally:
            release_environment(environment)


Implementation = Callable[[list[Entity]], AbstractContextManager[tuple[Snapshot, Truth]]]
every_snapshot = pytest.mark.parametrize("of", [put, built])


def same_scope(one: ScopeContext | None, other: ScopeContext | None) -> bool:
    if one is None or other is None:
        return one is other
    states = [
        (s.course_state, s.edit_window_us, s.open_to_course, s.facts, s.possible)
        for s in (one.state, other.state)
    ]
    ids = [(each.course_id, each.session_id) for each in (one, other)]
    return states[0] == states[1] and ids[0] == ids[1]


@every_snapshot
@examples(60)
@given(campuses(), subjects, refs)
def test_reads_say_what_the_entities_say(
    of: Implementation, entities: list[Entity], subject: Subject, ref: ResourceRef
) -> None:
    with of(entities) as (snapshot, truth):
        for scope in SCOPES:
            found = snapshot.scope(scope)
            assert same_scope(found, truth.scope(scope))
            if found is not None:
                for member in (subject, *(m.subject for m in truth.of(Membership))):
                    held = sorted(map(str, snapshot.grants(member, found)))
                    assert held == sorted(map(str, truth.grants(member, found.scopes)))
        for named in (ref, *(resource.key for resource in truth.of(Resource))):
            mine, theirs = snapshot.resource(named, subject), truth.resource(named, subject)
            assert (mine is None, mine is SCOPE_MISSING) == (theirs is None, theirs is SCOPE_MISSING)
            if mine is not None and theirs is not None:
                assert same_scope(mine.scope, theirs.scope)
                assert (mine.facts, mine.times) == (theirs.facts, theirs.times)
                shared = any(share.resource == named for share in truth.of(Share))
                assert mine.is_shared is (shared and mine is not SCOPE_MISSING)
            assert snapshot.share(named, subject) == truth.share(named, subject)


def require_scan(expected: Iterable[Any], scan: Callable[..., Iterable[Any]], *by: Any, **named: Any) -> None:
    """A scan gives each of these keys once, in one order; resumed after each key it gives the rest."""

    def keys(**after: Any) -> list[Any]:
        return [each[0] if isinstance(each, tuple) else each for each in scan(*by, **named, **after)]

    found = keys()
    assert len(found) == len(set(found))
    assert set(found) == set(expected)
    for position, key in enumerate(found):
        assert keys(after=key) == found[position + 1 :]


@every_snapshot
@examples(60)
@given(campuses())
def test_resources_are_scanned_by_scope_by_owner_and_by_share(
    of: Implementation, entities: list[Entity]
) -> None:
    with of(entities) as (snapshot, truth):
        resources = [r for r in truth.of(Resource) if truth.scope(r.scope) is not None]
        registered = {r.key for r in resources}
        shares = [s for s in truth.of(Share) if s.resource in registered]
        scan = snapshot.scan_resources
        for scope in SCOPES:
            require_scan((r.key for r in resources if r.scope == scope), scan, scope=scope)
        owners = (r.owner for r in truth.of(Resource))
        for subject in {s for s in (*owners, *(s.subject for s in truth.of(Share))) if s}:
            require_scan((r.key for r in resources if r.owner == subject), scan, owner=subject)
            require_scan((s.resource for s in shares if s.subject == subject), scan, shared_with=subject)


@every_snapshot
@examples(60)
@given(campuses())
def test_members_scopes_and_sessions_are_scanned_with_what_they_hold(
    of: Implementation, entities: list[Entity]
) -> None:
    with of(entities) as (snapshot, truth):
        memberships = [m for m in truth.of(Membership) if truth.scope(m.scope) is not None]
        for scope in SCOPES:
            members = {m.subject for m in memberships if m.scope == scope}
            require_scan(members, snapshot.scan_members, scope)
            for subject, grants in snapshot.scan_members(scope):
                assert sorted(map(str, grants)) == sorted(map(str, truth.grants(subject, [scope])))
        for subject in {m.subject for m in truth.of(Membership)}:
            scopes = {m.scope for m in memberships if m.subject == subject}
            require_scan(scopes, snapshot.scan_scopes, subject)
            for scope, grants in snapshot.scan_scopes(subject):
                assert sorted(map(str, grants)) == sorted(map(str, truth.grants(subject, [scope])))
        for course in COURSES:
            sessions = (
                s.id for s in truth.of(Session) if s.course_id == course and truth.scope(course_scope(course))
            )
            require_scan(sessions, snapshot.scan_sessions, course)


def test_a_scan_resumes_on_a_later_snapshot_behind_a_key_that_is_gone() -> None:
    scope = course_scope("c")
    owned = [Resource(type="notebook", id=f"n{number}", scope=scope) for number in range(6)]
    first = Campus([Course(id="c"), *owned], revision=1)
    scan = first.scan_resources(scope=scope)
    page = [next(scan).id for _ in range(3)]
    second = Campus([Course(id="c"), owned[0], *owned[3:]], revision=2)
    rest = [ref.id for ref in second.scan_resources(scope=scope, after=ResourceRef("notebook", page[-1]))]
    assert (first.revision, page) == (1, ["n0", "n1", "n2"])
    assert (second.revision, rest) == (2, ["n3", "n4", "n5"])


def test_a_snapshot_goes_on_scanning_its_own_state_while_the_replica_changes() -> None:
    scope = course_scope("c")
    members = [Membership(subject=user(f"u{n}"), scope=scope, role="student") for n in range(4)]
    first = Campus([Course(id="c"), *members])
    scan = first.scan_members(scope)
    seen = [next(scan)[0].id]
    Campus([Course(id="c")], revision=2)
    assert [*seen, *(subject.id for subject, _ in scan)] == ["u0", "u1", "u2", "u3"]


def test_ids_that_begin_alike_are_kept_apart() -> None:
    scopes = [course_scope(text) for text in ("c", "c:", "course:c", "cc")]
    entities = [
        Resource(type="notebook", id=f"in {scope.id}".replace(" ", "-"), scope=scope) for scope in scopes
    ]
    campus = Campus([*(Course(id=scope.id) for scope in scopes), *entities])
    for scope, entity in zip(scopes, entities, strict=True):
        assert list(campus.scan_resources(scope=scope)) == [entity.key]


def test_a_scan_of_resources_takes_exactly_one_filter() -> None:
    campus = Campus([])
    for filters in ({}, {"scope": course_scope("c"), "owner": user("maya")}):
        with pytest.raises(ValueError, match="exactly one"):
            list(campus.scan_resources(**filters))  # type: ignore[arg-type]  # wrong on purpose
