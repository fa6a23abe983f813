"""Words for the store's tests: a vocabulary, a clock, and short ways to write entities."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Engine, event

from authz.domain import ports
from authz.domain.entities import KINDS, Course, Entity, Key, Membership, Resource, Session, Share, ShareLevel
from authz.domain.errors import AuthzError, ErrorReason
from authz.domain.ids import ResourceRef, Scope, ScopeKind, Subject, SubjectType, course_scope
from authz.domain.mutations import Change, Mutation, Operation, WriteRequest
from authz.domain.origin import Origin
from authz.domain.tokens import ConsistencyToken
from authz.domain.vocabulary import RoleDeclaration, TypeDeclaration, Vocabulary
from authz.store import Store, open_store, prepare_store

VOCABULARY = Vocabulary(
    roles={
        "student": RoleDeclaration("student", ScopeKind.COURSE, 10, False, ""),
        "teacher": RoleDeclaration("teacher", ScopeKind.COURSE, 50, True, ""),
        "host": RoleDeclaration("host", ScopeKind.SESSION, 50, True, ""),
        "officer": RoleDeclaration("officer", ScopeKind.PLATFORM, 90, True, ""),
    },
    types={name: TypeDeclaration(name, ("read",)) for name in ("course", "session", "notebook", "message")},
)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 1_700_000_000_000_000

    def __call__(self) -> int:
        return self.now


def open_with(url: str, clock: Clock | None = None, *, contents_at_once: int = 500) -> Store:
    """A migrated store with the test's vocabulary."""
    prepare_store(url)
    return open_store(
        url, vocabularies=lambda *_: VOCABULARY, clock=clock or Clock(), contents_at_once=contents_at_once
    )


def user(name: str) -> Subject:
    """A user."""
    return Subject(SubjectType.USER, name)


def create(entity: Entity) -> Mutation:
    """CREATE."""
    return Mutation(Operation.CREATE, entity)


def touch(entity: Entity) -> Mutation:
    """TOUCH."""
    return Mutation(Operation.TOUCH, entity)


def remove(key: Key | Entity) -> Mutation:
    """DELETE."""
    return Mutation(Operation.DELETE, key)


def student(name: str, course_id: str) -> Membership:
    """A student of a course."""
    return Membership(subject=user(name), scope=course_scope(course_id), role="student")


def hold(
    store: Store, subject: Subject, reason: str = "case 12", actor: str = "service:dpo"
) -> ConsistencyToken:
    """Place a hold."""
    return store.personal_data.hold(subject, origin=Origin(actor, reason))


def release_hold(store: Store, subject: Subject, reason: str = "over") -> ConsistencyToken:
    """End a hold."""
    return store.personal_data.release_hold(subject, origin=Origin("service:dpo", reason))


def restrict(store: Store, subject: Subject, reason: str = "disputed") -> ConsistencyToken:
    """Restrict the processing of the subject's data."""
    return store.personal_data.restrict(subject, origin=Origin("service:dpo", reason))


def lift_restriction(store: Store, subject: Subject, reason: str = "settled") -> ConsistencyToken:
    """End a restriction."""
    return store.personal_data.lift_restriction(subject, origin=Origin("service:dpo", reason))


def notebook(name: str, scope: Scope) -> Resource:
    """A notebook in a scope."""
    return Resource(type="notebook", id=name, scope=scope, owner=user("maya"))


def share(name: str, with_: str, *, awaits: bool = False) -> Share:
    """A notebook opened to a user."""
    ref = ResourceRef("notebook", name)
    return Share(resource=ref, subject=user(with_), level=ShareLevel.VIEWER, awaits_membership=awaits)


def lesson(course_id: str, session_id: str) -> tuple[Entity, ...]:
    """A course with a session, a member, a notebook in each, and a share."""
    in_session = Scope(ScopeKind.SESSION, session_id)
    return (
        Course(id=course_id),
        Session(id=session_id, course_id=course_id),
        student("maya", course_id),
        Membership(subject=user("omar"), scope=in_session, role="host"),
        notebook(f"{course_id}-nb", course_scope(course_id)),
        notebook(f"{session_id}-nb", in_session),
        share(f"{session_id}-nb", "maya"),
    )


def write(store: Store, *mutations: Mutation, idempotency_key: str = "", reason: str = "") -> int:
    """A write without preconditions; its revision."""
    request = WriteRequest(
        mutations=mutations, idempotency_key=idempotency_key, origin=Origin("test", reason)
    )
    return store.directory.write(request).revision


def refusal_of(store: Store, *mutations: Mutation) -> ErrorReason:
    """Why a write is refused."""
    with pytest.raises(AuthzError) as caught:
        write(store, *mutations)
    return caught.value.reason


def changes_of(store: Store, after: int, limit: int) -> tuple[Change, ...]:
    """What was committed after a revision."""
    return store.directory.follow(after, limit).changes


def replay(changes: tuple[Change, ...]) -> dict[Key, tuple[Entity | Key, int]]:
    """What a follower of the log ends up with: each entity and the revision that last wrote it."""
    held: dict[Key, tuple[Entity | Key, int]] = {}
    for change in changes:
        for mutation in change.mutations:
            if mutation.operation is Operation.DELETE:
                last, _ = held.pop(mutation.key)
                assert last == mutation.target
            else:
                held[mutation.key] = (mutation.target, change.revision)
    return held


def stored(store: Store, page_size: int = 100) -> dict[Key, tuple[Entity | Key, int]]:
    """All that the listings show."""
    directory = store.directory
    held: dict[Key, tuple[Entity | Key, int]] = {}
    for kind in KINDS.values():
        token, more = "", True
        while more:
            page = directory.read(kind.filter_type(), ports.Page(page_size, token))
            held.update({each.entity.key: (each.entity, each.revision) for each in page.items})
            token = page.next_token
            more = bool(token)
    return held


def remove_all_contents(store: Store) -> int:
    """Remove what deletions have left; how many steps that took."""
    steps = 0
    while store.directory.removal_progress() is not None:
        store.directory.remove_contents()
        steps += 1
    return steps


def dumped(dump: ports.Dump) -> list[Entity]:
    """All that a dump holds."""
    return [entity for kind in KINDS.values() for entity in dump.entities(kind)]


@contextmanager
def counted(store: Store) -> Iterator[list[str]]:
    """The statements that the store sends."""
    engine: Engine = store.directory._engine
    statements: list[str] = []

    def note(_c: object, _cursor: object, statement: str, *_rest: object) -> None:
        statements.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    yield statements
    event.remove(engine, "before_cursor_execute", note)
