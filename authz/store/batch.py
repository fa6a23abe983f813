"""Plans mutations over prefetched rows in memory, then stores their effects in bulk.

`Write` and `Import` differ only in what they do with a fault; both apply mutations here, one way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from sqlalchemy import Connection, Table, and_, select

from authz.domain.entities import (
    Course,
    CourseKey,
    Entity,
    EntityKind,
    Key,
    Membership,
    MembershipKey,
    Resource,
    Session,
    SessionKey,
    Share,
    ShareKey,
    Versioned,
    Visibility,
    kind_of,
)
from authz.domain.errors import AlreadyExistsError, ErrorReason, FailedPreconditionError, InvalidArgumentError
from authz.domain.ids import Scope, ScopeKind, course_scope, session_scope
from authz.domain.mutations import ChangeScope, Mutation, Operation
from authz.domain.validation import validate_mutation
from authz.domain.vocabulary import Vocabulary
from authz.store.bulk import delete_by_key, insert_rows, select_by_key, upsert_rows
from authz.store.rows import ENTITY_TABLES, key_values

_CASCADING = (EntityKind.COURSE, EntityKind.SESSION, EntityKind.RESOURCE)


class Batch:
    """The state that writes lead to, planned one write after another."""

    def __init__(self, connection: Connection, vocabulary: Vocabulary) -> None:
        self._connection = connection
        self._vocabulary = vocabulary
        self._revision = 0
        self._state: dict[Key, Versioned[Entity] | None] = {}
        self._dirty: dict[Key, None] = {}
        # Of the write that is being planned, kept apart so that it can be dropped whole:
        self._planned: dict[Key, Versioned[Entity] | None] = {}
        self._planned_dirty: dict[Key, None] = {}
        self._effects: list[tuple[Mutation, ChangeScope]] = []

    def prefetch(self, keys: Iterable[Key]) -> None:
        """Read the rows of these keys at once, and of what says where they are.

        ConsistencyGate them one by one later would still be right.
        """
        wanted: dict[EntityKind, list[Key]] = defaultdict(list)
        for key in dict.fromkeys(keys):
            if key not in self._state:
                wanted[kind_of(key)].append(key)
                self._state[key] = None
        for kind, missing in wanted.items():
            stored = ENTITY_TABLES[kind]
            values = [key_values(key, kind) for key in missing]
            for row in select_by_key(self._connection, stored.table, values):
                entity = stored.from_row(row)
                self._state[entity.key] = Versioned(entity, row.version)
        around = [each for keys in wanted.values() for key in keys for each in self._around(key)]
        if around:
            self.prefetch(around)

    @contextmanager
    def attempt(
        self, revision: int, *, flushes: bool = False
    ) -> Iterator[list[tuple[Mutation, ChangeScope]]]:
        """Plan one write: what is applied in the block is taken whole, or, when it raises, not at all.

        Yields its effects in order, deletions with the entity as it last stood, and where each is.
        `flushes` is to be true when the block may raise after applying a mutation that `cascades`: such
        a one stores what is planned before it, which then takes a savepoint to undo.
        """
        self._revision, self._effects = revision, []
        if flushes:
            self.flush()
        try:
            with self._connection.begin_nested() if flushes else nullcontext():
                yield self._effects
            self._state |= self._planned
            self._dirty |= self._planned_dirty
        finally:
            self._planned.clear()
            self._planned_dirty.clear()

    def find(self, key: Key) -> Versioned[Entity] | None:
        """What is there under a key, after the mutations so far."""
        if key in self._planned:
            return self._planned[key]
        if key not in self._state:
            self.prefetch([key])
        return self._state[key]

    def apply(self, mutation: Mutation) -> bool:
        """Take one mutation into the write that is attempted; return whether it changes anything.

        Raises AlreadyExistsError, FailedPreconditionError or InvalidArgumentError, and then has
        changed nothing.
        """
        validate_mutation(mutation, self._vocabulary)
        if mutation.operation is Operation.DELETE:
            return self._delete(mutation.key)
        entity = mutation.target
        assert isinstance(entity, Entity)  # noqa: S101  validated above; narrows for the type checker
        before = self.find(entity.key)
        if before is not None:
            if mutation.operation is Operation.CREATE:
                raise AlreadyExistsError(
                    ErrorReason.ENTITY_EXISTS,
                    f"{entity.key} exists; write it with TOUCH, or delete it first",
                    key=str(entity.key),
                )
            if before.entity == entity:
                return False
            _require_same_scope(before.entity, entity)
        self._require_references(entity)
        if before is None:
            self._store_deletion(entity.key)
        self._put(mutation, self._place(entity), Versioned(entity, self._revision))
        return True

    def flush(self) -> None:
        """Store all that was taken and is not stored yet, in bulk."""
        self._store(self._dirty, self._state)

    def _store(self, dirty: dict[Key, None], state: Mapping[Key, Versioned[Entity] | None]) -> None:
        gone: dict[EntityKind, list[Key]] = defaultdict(list)
        kept: dict[EntityKind, list[Versioned[Entity]]] = defaultdict(list)
        for key in dirty:
            versioned = state[key]
            if versioned is None:
                gone[kind_of(key)].append(key)
            else:
                kept[kind_of(key)].append(versioned)
        dirty.clear()
        for kind in reversed(ENTITY_TABLES):
            self._remove(kind, gone[kind])
        for kind in ENTITY_TABLES:
            self._upsert(kind, kept[kind])

    def _store_deletion(self, key: Key) -> None:
        """Of what is about to be made anew: its row must go before what it referred to does."""
        if key in self._planned_dirty:
            self._store(self._planned_dirty, self._planned)
        elif key in self._dirty:
            self.flush()

    def _put(self, mutation: Mutation, place: ChangeScope, versioned: Versioned[Entity] | None) -> None:
        self._effects.append((mutation, place))
        self._planned[mutation.key] = versioned
        self._planned_dirty[mutation.key] = None

    def _delete(self, key: Key) -> bool:
        before = self.find(key)
        if before is None:
            return False
        if kind_of(key) in _CASCADING:
            # What goes along is found in the database, so all that came before must be there.
            self._store(self._planned_dirty, self._planned)
            for entity, place in self._inside(before.entity):
                self._put(Mutation(Operation.DELETE, entity), place, None)
        self._put(Mutation(Operation.DELETE, before.entity), self._place(before.entity), None)
        return True

    def _place(self, entity: Entity) -> ChangeScope:
        match entity:
            case Course(id=course_id):
                return ChangeScope(course_id)
            case Session(id=session_id, course_id=course_of):
                return ChangeScope(course_of, session_id)
            case Share(resource=ref):
                found = self.find(ref)
                return ChangeScope() if found is None else self._place(found.entity)
            case Membership(scope=scope) | Resource(scope=scope):
                if scope.kind is ScopeKind.COURSE:
                    return ChangeScope(scope.id)
                session = self.find(SessionKey(scope.id)) if scope.kind is ScopeKind.SESSION else None
                return ChangeScope() if session is None else self._place(session.entity)

    def _around(self, key: Key) -> tuple[Key, ...]:
        """What else must be known to say where the entity under a key is."""
        found = self._state[key]
        match key if found is None else found.entity:
            case Share(resource=ref) | ShareKey(resource=ref):
                return (ref,)
            case Membership(scope=scope) | MembershipKey(scope=scope) | Resource(scope=scope):
                return (SessionKey(scope.id),) if scope.kind is ScopeKind.SESSION else ()
            case _:
                return ()

    def _inside(self, entity: Entity) -> list[tuple[Entity, ChangeScope]]:
        """All that goes along with a course, session or resource, and where; what refers comes first."""
        place = self._place(entity)
        if isinstance(entity, Resource):
            shares = ENTITY_TABLES[EntityKind.SHARE].table
            of_it = and_(shares.c.resource_type == entity.type, shares.c.resource_id == entity.id)
            return [(share, place) for share in self._select(EntityKind.SHARE, of_it)]
        if isinstance(entity, Session):
            return [(inner, place) for inner in self._in_scope(session_scope(entity.id))]
        sessions = ENTITY_TABLES[EntityKind.SESSION].table
        course_id = str(getattr(entity, "id", ""))
        inside: list[tuple[Entity, ChangeScope]] = []
        for session in self._select(EntityKind.SESSION, sessions.c.course_id == course_id):
            inside += [*self._inside(session), (session, self._place(session))]
        return inside + [(inner, place) for inner in self._in_scope(course_scope(course_id))]

    def _in_scope(self, scope: Scope) -> list[Entity]:
        inside: list[Entity] = []
        shares = ENTITY_TABLES[EntityKind.SHARE].table
        resources = ENTITY_TABLES[EntityKind.RESOURCE].table
        in_scope = and_(resources.c.scope_kind == scope.kind.value, resources.c.scope_id == scope.id)
        of_resource = and_(shares.c.resource_type == resources.c.type, shares.c.resource_id == resources.c.id)
        inside += self._select(EntityKind.SHARE, select(resources.c.id).where(of_resource, in_scope).exists())
        inside += self._select(EntityKind.RESOURCE, in_scope)
        memberships = ENTITY_TABLES[EntityKind.MEMBERSHIP].table
        inside += self._select(
            EntityKind.MEMBERSHIP,
            and_(memberships.c.scope_kind == scope.kind.value, memberships.c.scope_id == scope.id),
        )
        return inside

    def _select(self, kind: EntityKind, condition: Any) -> list[Entity]:
        stored = ENTITY_TABLES[kind]
        order = [stored.table.c[name] for name in stored.key_columns]
        rows = self._connection.execute(select(stored.table).where(condition).order_by(*order))
        return [stored.from_row(row) for row in rows]

    def _require_references(self, entity: Entity) -> None:
        for key in references(entity):
            if self.find(key) is None:
                raise FailedPreconditionError(
                    ErrorReason.REFERENCE_NOT_FOUND,
                    f"{entity.key} refers to {key}, which does not exist; write that first",
                    key=str(key),
                )
        if isinstance(entity, Resource) and entity.visibility is Visibility.COURSE:
            self._require_course_around(entity)

    def _require_course_around(self, resource: Resource) -> None:
        if resource.scope.kind is ScopeKind.SESSION:
            session = self.find(SessionKey(resource.scope.id))
            if session is None or not isinstance(session.entity, Session) or session.entity.course_id is None:
                raise InvalidArgumentError(
                    ErrorReason.MALFORMED_FIELD,
                    f"resource.visibility is COURSE, but {resource.scope} belongs to no course; use SESSION",
                    field="resource.visibility",
                )

    def _remove(self, kind: EntityKind, keys: Sequence[Key]) -> None:
        values = [key_values(key, kind) for key in keys]
        delete_by_key(self._connection, ENTITY_TABLES[kind].table, values)

    def _upsert(self, kind: EntityKind, versioned: Sequence[Versioned[Entity]]) -> None:
        stored = ENTITY_TABLES[kind]
        rows = [stored.to_row(each.entity) | {"version": each.version} for each in versioned]
        upsert_rows(self._connection, stored.table, rows)


def cascades(mutation: Mutation) -> bool:
    """Whether applying a mutation may delete more than what it names."""
    return mutation.operation is Operation.DELETE and mutation.kind in _CASCADING


def references(entity: Entity) -> tuple[Key, ...]:
    """What must exist for an entity to be stored."""
    match entity:
        case Session(course_id=str() as course_id):
            return (CourseKey(course_id),)
        case Membership(scope=scope) | Resource(scope=scope):
            return _scope_key(scope)
        case Share(resource=ref):
            return (ref,)
        case _:
            return ()


def touched_keys(mutation: Mutation) -> tuple[Key, ...]:
    """The keys that applying a mutation looks at."""
    target = mutation.target
    return (target.key, *references(target)) if isinstance(target, Entity) else (target.key,)


def append_changes(connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
    """Store rows of the change log."""
    insert_rows(connection, table, rows)


def _scope_key(scope: Scope) -> tuple[Key, ...]:
    match scope.kind:
        case ScopeKind.COURSE:
            return (CourseKey(scope.id),)
        case ScopeKind.SESSION:
            return (SessionKey(scope.id),)
        case ScopeKind.PLATFORM:
            return ()


def _require_same_scope(before: Entity, after: Entity) -> None:
    match before, after:
        case Session(course_id=old), Session(course_id=new):
            pass
        case Resource(scope=old_scope), Resource(scope=new_scope):
            old, new = str(old_scope), str(new_scope)
        case _:
            return
    if old != new:
        raise FailedPreconditionError(
            ErrorReason.SCOPE_IMMUTABLE,
            f"{after.key} is in `{old or 'no course'}` and cannot move to `{new or 'no course'}`; "
            "delete it and create it anew",
            key=str(after.key),
        )
