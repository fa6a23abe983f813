"""Plans mutations over prefetched rows in memory, then stores their effects in bulk.

`Write` and `Import` differ only in what they do with a fault; both apply mutations here, one way.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

from sqlalchemy import Connection, Table, and_, delete, insert, select
from sqlalchemy.dialects.postgresql import insert as postgresql_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

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
from authz.domain.mutations import Mutation, Operation, Place
from authz.domain.validation import validate_mutation
from authz.domain.vocabulary import Vocabulary
from authz.store.rows import ENTITY_TABLES, key_values

_CHUNK = 400
_CASCADING = (EntityKind.COURSE, EntityKind.SESSION, EntityKind.RESOURCE)


class Batch:
    """The state that mutations lead to, and the log of what they change.

    `log` holds each effect in order, deletions with the entity as it last stood, and where it is.
    """

    def __init__(self, connection: Connection, vocabulary: Vocabulary, revision: int) -> None:
        self.log: list[tuple[Mutation, Place]] = []
        self._connection = connection
        self._vocabulary = vocabulary
        self._revision = revision
        self._state: dict[Key, Versioned[Entity] | None] = {}
        self._dirty: dict[Key, None] = {}

    def prefetch(self, keys: Iterable[Key]) -> None:
        """Read the rows of these keys at once, and of what says where they are.

        Reading them one by one later would still be right.
        """
        wanted: dict[EntityKind, list[Key]] = defaultdict(list)
        for key in dict.fromkeys(keys):
            if key not in self._state:
                wanted[kind_of(key)].append(key)
                self._state[key] = None
        for kind, missing in wanted.items():
            stored = ENTITY_TABLES[kind]
            for chunk in _chunks(missing):
                values = [key_values(key, kind) for key in chunk]
                for row in self._connection.execute(
                    select(stored.table).where(stored.has_key(values, dialect=self._connection.dialect.name))
                ).mappings():
                    entity = stored.from_row(row)
                    self._state[entity.key] = Versioned(entity, row["version"])
        around = [each for keys in wanted.values() for key in keys for each in self._around(key)]
        if around:
            self.prefetch(around)

    def find(self, key: Key) -> Versioned[Entity] | None:
        """What is there under a key, after the mutations so far."""
        if key not in self._state:
            self.prefetch([key])
        return self._state[key]

    def apply(self, mutation: Mutation) -> bool:
        """Take in one mutation; return whether it changes anything.

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
        self._put(mutation, self._place(entity), Versioned(entity, self._revision))
        return True

    def flush(self) -> None:
        """Store all effects so far, in bulk."""
        gone: dict[EntityKind, list[Key]] = defaultdict(list)
        kept: dict[EntityKind, list[Versioned[Entity]]] = defaultdict(list)
        for key in self._dirty:
            versioned = self._state[key]
            if versioned is None:
                gone[kind_of(key)].append(key)
            else:
                kept[kind_of(key)].append(versioned)
        self._dirty.clear()
        for kind in reversed(ENTITY_TABLES):
            self._remove(kind, gone[kind])
        for kind in ENTITY_TABLES:
            self._upsert(kind, kept[kind])

    def _put(self, mutation: Mutation, place: Place, versioned: Versioned[Entity] | None) -> None:
        self.log.append((mutation, place))
        self._state[mutation.key] = versioned
        self._dirty[mutation.key] = None

    def _delete(self, key: Key) -> bool:
        before = self.find(key)
        if before is None:
            return False
        if kind_of(key) in _CASCADING:
            self.flush()
            for entity, place in self._inside(before.entity):
                self._put(Mutation(Operation.DELETE, entity), place, None)
        self._put(Mutation(Operation.DELETE, before.entity), self._place(before.entity), None)
        return True

    def _place(self, entity: Entity) -> Place:
        match entity:
            case Course(id=course_id):
                return Place(course_id)
            case Session(id=session_id, course_id=course_of):
                return Place(course_of, session_id)
            case Share(resource=ref):
                found = self.find(ref)
                return Place() if found is None else self._place(found.entity)
            case Membership(scope=scope) | Resource(scope=scope):
                if scope.kind is ScopeKind.COURSE:
                    return Place(scope.id)
                session = self.find(SessionKey(scope.id)) if scope.kind is ScopeKind.SESSION else None
                return Place() if session is None else self._place(session.entity)

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

    def _inside(self, entity: Entity) -> list[tuple[Entity, Place]]:
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
        inside: list[tuple[Entity, Place]] = []
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
        rows = self._connection.execute(select(stored.table).where(condition).order_by(*order)).mappings()
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
        stored = ENTITY_TABLES[kind]
        for chunk in _chunks(keys):
            values = [key_values(key, kind) for key in chunk]
            self._connection.execute(
                delete(stored.table).where(stored.has_key(values, dialect=self._connection.dialect.name))
            )

    def _upsert(self, kind: EntityKind, versioned: Sequence[Versioned[Entity]]) -> None:
        stored = ENTITY_TABLES[kind]
        rows = [stored.to_row(each.entity) | {"version": each.version} for each in versioned]
        if rows:
            self._connection.execute(_upserting(self._connection, stored.table, stored.key_columns), rows)


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
    if rows:
        connection.execute(insert(table), rows)


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


def _upserting(connection: Connection, table: Table, key_columns: tuple[str, ...]) -> Any:
    make = postgresql_insert if connection.dialect.name == "postgresql" else sqlite_insert
    statement = make(table)
    others = {c.name: statement.excluded[c.name] for c in table.columns if c.name not in key_columns}
    return statement.on_conflict_do_update(index_elements=list(key_columns), set_=others)


def _chunks(keys: Sequence[Key]) -> Iterable[list[Key]]:
    rest = iter(keys)
    while chunk := list(islice(rest, _CHUNK)):
        yield chunk
