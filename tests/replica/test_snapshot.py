"""The suite that every snapshot passes: its reads and scans say what the entities of its state say."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import product
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.domain.context import (
    SCOPE_MISSING,
    ResourceContext,
    ScopeContext,
    resource_context_of,
    scope_context_of,
)
from authz.domain.effective_roles import MembershipTerms, Suspension
from authz.domain.entities import (
    Account,
    AccountStatus,
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
from authz.domain.origin import Origin
from authz.domain.ports import Snapshot
from authz.replica.caches import Caches
from authz.replica.environment import acquire_environment, release_environment
from authz.replica.generations import build_replica
from authz.replica.snapshot import ReplicaSnapshot
from authz.store import open_store
from tests.client.random_campus import crowds
from tests.databases import create_sqlite
from tests.engine.campus import Campus
from tests.engine.test_isolation import COURSES, SESSIONS, TYPES, campuses, instants, refs, subjects
from tests.facts import terms_of
from tests.policies import POLICY
from tests.properties import examples
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

    def memberships(self, subject: Subject, scopes: Iterable[Scope]) -> list[MembershipTerms]:
        where = set(scopes)
        return [terms_of(m) for m in self.of(Membership) if m.subject == subject and m.scope in where]

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
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        url = create_sqlite(folder / "authz.db")
        store = open_store(url, vocabularies=lambda *_: POLICY.vocabulary, clock=Clock())
        try:
            mutations = [Mutation(Operation.TOUCH, entity) for entity in entities]
            store.directory.import_batch(mutations, offset=0, origin=Origin(""))
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
@examples(30)
@given(campuses(), subjects, refs, st.builds(Account, subjects, st.sampled_from(AccountStatus), instants))
def test_reads_say_what_the_entities_say(
    of: Implementation, entities: list[Entity], subject: Subject, ref: ResourceRef, account: Account
) -> None:
    with of([*entities, account]) as (snapshot, truth):
        accounts = {each.subject: each for each in truth.of(Account)}
        for asked in (subject, account.subject):
            known = accounts.get(asked)
            expected = None
            if known is not None and known.status is AccountStatus.SUSPENDED:
                expected = Suspension(known.suspended_until)
            assert snapshot.suspension(asked) == expected
        for scope in SCOPES:
            found = snapshot.scope(scope)
            assert same_scope(found, truth.scope(scope))
            if found is not None:
                for member in (subject, *(m.subject for m in truth.of(Membership))):
                    held = sorted(map(str, snapshot.memberships(member, found)))
                    assert held == sorted(map(str, truth.memberships(member, found.scopes)))
        for named in (ref, *(resource.key for resource in truth.of(Resource))):
            mine, theirs = snapshot.resource(named, subject), truth.resource(named, subject)
            assert (mine is None, mine is SCOPE_MISSING) == (theirs is None, theirs is SCOPE_MISSING)
            if mine is not None and theirs is not None:
                assert same_scope(mine.scope, theirs.scope)
                assert (mine.facts, mine.times) == (theirs.facts, theirs.times)
                shared = any(share.resource == named for share in truth.of(Share))
                assert mine.is_shared is (shared and mine is not SCOPE_MISSING)
            assert snapshot.share(named, subject) == truth.share(named, subject)


def require_resumes(found: list[T], scan: Callable[[T], Iterable[T]]) -> None:
    """A scan has no key twice; resumed after each of its keys it gives the rest."""
    assert len(found) == len(set(found))
    for position, key in enumerate(found):
        assert list(scan(key)) == found[position + 1 :]


Ids = tuple[str, str]


def ids_of(context: ScopeContext) -> Ids:
    return context.course_id or "", context.session_id or ""


@every_snapshot
@examples(30)
@given(campuses() | crowds)
def test_contexts_are_those_in_which_a_membership_counts(of: Implementation, entities: list[Entity]) -> None:
    with of(entities) as (snapshot, truth):
        memberships = truth.of(Membership)
        every = [context for scope in SCOPES[1:] if (context := truth.scope(scope)) is not None]

        def scan(subject: Subject | None, start: Ids = ("", "")) -> list[Ids]:
            return [ids_of(each) for each in snapshot.scan_contexts(subject, start=start) if each is not None]

        for subject in (None, *{m.subject for m in memberships}):
            homes = {m.scope for m in memberships if m.subject == subject}
            found = scan(subject)
            assert set(found) == {
                ids_of(each) for each in every if subject is None or not homes.isdisjoint(each.scopes[1:])
            }
            assert len(found) == len(set(found))
            for position, place in enumerate(found):
                assert scan(subject, place) == found[position:]
            everywhere = scan(None)
            assert found == [place for place in everywhere if place in found], "another order"


@every_snapshot
@examples(30)
@given(campuses())
def test_content_is_scanned_by_scope_and_type_as_the_subject_finds_it(
    of: Implementation, entities: list[Entity]
) -> None:
    with of(entities) as (snapshot, truth):
        resources, shares = truth.of(Resource), truth.of(Share)
        asking = {s for s in (*(r.owner for r in resources), *(s.subject for s in shares)) if s}
        scopes = [context for scope in SCOPES[1:] if (context := snapshot.scope(scope)) is not None]
        for scope, type_name, subject, only_own in product(scopes, TYPES, asking, (False, True)):
            here = [r for r in resources if r.type == type_name and r.scope == scope.scopes[-1]]
            own = {s.resource for s in shares if s.subject == subject} | {
                r.key for r in here if r.owner == subject
            }
            found = [*snapshot.scan_content(scope, type_name, subject, only_own=only_own)]
            assert {id_ for id_, _ in found} == {r.id for r in here if not only_own or r.key in own}
            for id_, resource in found:
                expected = snapshot.resource(ResourceRef(type_name, id_), subject)
                assert expected is not None
                assert (resource.facts, resource.times, resource.is_shared) == (
                    expected.facts,
                    expected.times,
                    expected.is_shared,
                )
            require_resumes(
                [id_ for id_, _ in found],
                lambda last, at=(scope, type_name, subject), only_own=only_own: [  # type: ignore[misc]
                    id_ for id_, _ in snapshot.scan_content(*at, after=last, only_own=only_own)
                ],
            )


@every_snapshot
@examples(60)
@given(campuses() | crowds)
def test_members_and_holders_are_scanned_once_each(of: Implementation, entities: list[Entity]) -> None:
    with of(entities) as (snapshot, truth):
        memberships = truth.of(Membership)
        contexts = [context for scope in SCOPES if (context := snapshot.scope(scope)) is not None]
        for context, platform in product(contexts, (False, True)):
            counting = {s for s in context.scopes if platform or s != PLATFORM}
            found = [*snapshot.scan_members(context, platform=platform)]
            assert set(found) == {m.subject for m in memberships if m.scope in counting}
            for member in found:
                held = sorted(map(str, snapshot.memberships(member, context)))
                assert held == sorted(map(str, truth.memberships(member, context.scopes)))
            require_resumes(
                found,
                lambda last, at=context, platform=platform: snapshot.scan_members(  # type: ignore[misc]
                    at, platform=platform, after=last
                ),
            )
        for resource in truth.of(Resource):
            assert snapshot.owner(resource.key) == resource.owner
            holders = {s.subject for s in truth.of(Share) if s.resource == resource.key}
            found = [*snapshot.scan_holders(resource.key)]
            assert set(found) == holders | ({resource.owner} - {None})
            require_resumes(
                found,
                lambda last, ref=resource.key: snapshot.scan_holders(ref, after=last),  # type: ignore[misc]
            )


def ids_in(campus: Campus, scope: Scope, after: str = "") -> list[str]:
    context = campus.scope(scope)
    assert context is not None
    return [id_ for id_, _ in campus.scan_content(context, "notebook", user("maya"), after=after)]


@every_snapshot
@examples(60)
@given(campuses())
def test_a_scope_is_scanned_with_the_grants_the_owners_and_the_shares_in_it(
    of: Implementation, entities: list[Entity]
) -> None:
    stranger = user("nobody-owns-this")
    with of(entities) as (snapshot, truth):
        members = {(m.scope, m.subject) for m in truth.of(Membership)}
        assert snapshot.count_members() == len(members)
        for scope in SCOPES:
            context = snapshot.scope(scope)
            if context is None:
                continue
            held = {
                subject: sorted(map(str, memberships))
                for subject, memberships in snapshot.scan_memberships(context)
            }
            assert held == {
                subject: sorted(map(str, truth.memberships(subject, [scope])))
                for where, subject in members
                if where == scope
            }
            for type_name in TYPES:
                found = {
                    ref: (owner, resource.facts, resource.times, resource.is_shared)
                    for ref, owner, resource in snapshot.scan_owned(context, type_name)
                }
                assert found == {
                    r.key: (
                        r.owner,
                        theirs.facts,
                        theirs.times,
                        any(s.resource == r.key for s in truth.of(Share)),
                    )
                    for r in truth.of(Resource)
                    if (r.scope, r.type) == (scope, type_name)
                    and (theirs := truth.resource(r.key, stranger)) is not None
                }
        for resource in truth.of(Resource):
            shares = {s.subject: s.level for s in truth.of(Share) if s.resource == resource.key}
            assert dict(snapshot.scan_shares(resource.key)) == shares


def test_a_scan_resumes_on_a_later_snapshot_behind_a_key_that_is_gone() -> None:
    scope = course_scope("c")
    owned = [Resource(type="notebook", id=f"n{number}", scope=scope) for number in range(6)]
    first = Campus([Course(id="c"), *owned], revision=1)
    page = ids_in(first, scope)[:3]
    second = Campus([Course(id="c"), owned[0], *owned[3:]], revision=2)
    rest = ids_in(second, scope, after=page[-1])
    assert ids_in(Campus([Course(id="c"), *owned[:5]], revision=3), scope, after="n5") == []
    assert (first.revision, page) == (1, ["n0", "n1", "n2"])
    assert (second.revision, rest) == (2, ["n3", "n4", "n5"])


def test_a_snapshot_goes_on_scanning_its_own_state_while_the_replica_changes() -> None:
    scope = course_scope("c")
    members = [Membership(subject=user(f"u{n}"), scope=scope, role="student") for n in range(4)]
    first = Campus([Course(id="c"), *members])
    context = first.scope(scope)
    assert context is not None
    scan = first.scan_members(context, platform=False)
    seen = [next(scan).id]
    Campus([Course(id="c")], revision=2)
    assert [*seen, *(subject.id for subject in scan)] == ["u0", "u1", "u2", "u3"]


def test_ids_that_begin_alike_are_kept_apart() -> None:
    scopes = [course_scope(text) for text in ("c", "c:", "course:c", "cc")]
    entities = [Resource(type="notebook", id=f"in-{scope.id}", scope=scope) for scope in scopes]
    campus = Campus([*(Course(id=scope.id) for scope in scopes), *entities])
    for scope, entity in zip(scopes, entities, strict=True):
        assert ids_in(campus, scope) == [entity.id]
