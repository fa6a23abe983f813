"""The source of truth: writes, imports, listings and the change log over one database."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence

import msgspec
from sqlalchemy import Connection, Engine, delete, insert, select, update

from authz.domain.entities import Course, EntityKind, Key, Membership, Resource, Session, Share
from authz.domain.errors import AuthzError, ErrorReason, FailedPreconditionError, InvalidArgumentError
from authz.domain.instants import US_PER_S, Instant
from authz.domain.mutations import (
    MAX_MUTATIONS_PER_WRITE,
    Change,
    Expectation,
    ImportBatchResult,
    ImportFault,
    LogStretch,
    Mutation,
    Operation,
    Precondition,
    WriteRequest,
)
from authz.domain.ports import (
    CourseFilter,
    Listing,
    MembershipFilter,
    Page,
    ResourceFilter,
    SessionFilter,
    ShareFilter,
)
from authz.domain.tokens import ConsistencyToken
from authz.domain.validation import validate_key
from authz.domain.vocabulary import Vocabulary
from authz.store import change_log, listing, tables
from authz.store.batch import Batch, append_changes, touched_keys
from authz.store.engine import read_transaction, write_transaction

IDEMPOTENCY_RETENTION_US = 7 * 24 * 3600 * US_PER_S

_UPSERT_ORDER = {kind: place for place, kind in enumerate(EntityKind)}
_encoder = msgspec.json.Encoder()


class Origin(msgspec.Struct, frozen=True):
    """Where a write comes from, as the log keeps it."""

    actor: str
    reason: str
    request_id: str


class SqlDirectory:
    """A `Directory` in SQLite or PostgreSQL."""

    def __init__(
        self, engine: Engine, vocabulary: Callable[[], Vocabulary], clock: Callable[[], Instant]
    ) -> None:
        self._engine = engine
        self._vocabulary = vocabulary
        self._clock = clock
        self._database_id = self.head().database_id

    @property
    def database_id(self) -> str:
        """Identifies this database for good."""
        return self._database_id

    def write(self, request: WriteRequest) -> int:
        """See `Directory.write`."""
        _require_shape(request)
        for precondition in request.preconditions:
            validate_key(precondition.key)
        digest = _digest(request)
        with write_transaction(self._engine) as connection:
            head = _lock_head(connection)
            if request.idempotency_key:
                known = _recall(connection, request.idempotency_key, digest, self._clock())
                if known is not None:
                    return known
            batch = Batch(connection, self._vocabulary(), head + 1)
            batch.prefetch(p.key for p in request.preconditions)
            batch.prefetch(_well_formed_keys(request.mutations))
            for precondition in request.preconditions:
                _require(batch, precondition)
            for mutation in sorted(request.mutations, key=_application_order):
                batch.apply(mutation)
            revision = self._commit(
                connection, batch, head, Origin(request.actor, request.reason, request.request_id)
            )
            if request.idempotency_key:
                _remember(connection, request.idempotency_key, digest, revision, self._clock())
            return revision

    def import_batch(
        self, mutations: Sequence[Mutation], *, offset: int, actor: str, request_id: str, reason: str
    ) -> ImportBatchResult:
        """See `Directory.import_batch`."""
        written = unchanged = 0
        faults: list[ImportFault] = []
        with write_transaction(self._engine) as connection:
            head = _lock_head(connection)
            batch = Batch(connection, self._vocabulary(), head + 1)
            batch.prefetch(_well_formed_keys(mutations))
            for position, mutation in enumerate(mutations, offset):
                try:
                    changed = batch.apply(mutation)
                except AuthzError as error:
                    faults.append(ImportFault(position, error.reason.value, error.message))
                else:
                    written += changed
                    unchanged += not changed
            revision = self._commit(connection, batch, head, Origin(actor, reason, request_id))
        return ImportBatchResult(
            written=written, unchanged=unchanged, faults=tuple(faults), revision=revision
        )

    def courses(self, wanted: CourseFilter, page: Page) -> Listing[Course]:
        """See `Directory.courses`."""
        return listing.list_entities(self._engine, EntityKind.COURSE, wanted, page)

    def sessions(self, wanted: SessionFilter, page: Page) -> Listing[Session]:
        """See `Directory.sessions`."""
        return listing.list_entities(self._engine, EntityKind.SESSION, wanted, page)

    def memberships(self, wanted: MembershipFilter, page: Page) -> Listing[Membership]:
        """See `Directory.memberships`."""
        return listing.list_entities(self._engine, EntityKind.MEMBERSHIP, wanted, page)

    def resources(self, wanted: ResourceFilter, page: Page) -> Listing[Resource]:
        """See `Directory.resources`."""
        return listing.list_entities(self._engine, EntityKind.RESOURCE, wanted, page)

    def shares(self, wanted: ShareFilter, page: Page) -> Listing[Share]:
        """See `Directory.shares`."""
        return listing.list_entities(self._engine, EntityKind.SHARE, wanted, page)

    def changes(self, after: int, limit: int) -> tuple[Change, ...]:
        """See `Directory.changes`."""
        return change_log.read_changes(self._engine, after, limit)

    def read_log(self, after: int, skip: int, limit: int) -> LogStretch:
        """See `Directory.read_log`."""
        return change_log.read_stretch(self._engine, after, skip, limit)

    def head(self) -> ConsistencyToken:
        """See `Directory.head`."""
        with read_transaction(self._engine) as connection:
            row = connection.execute(select(tables.counter)).one()
        return ConsistencyToken(row.database_id, row.revision)

    def close(self) -> None:
        """Release every connection."""
        self._engine.dispose()

    def _commit(self, connection: Connection, batch: Batch, head: int, origin: Origin) -> int:
        """Store effects and log under the next revision; without effects, the head stays."""
        if not batch.log:
            return head
        batch.flush()
        revision = head + 1
        connection.execute(update(tables.counter).values(revision=revision))
        connection.execute(
            insert(tables.revisions).values(
                revision=revision,
                committed_at=self._clock(),
                actor=origin.actor,
                reason=origin.reason,
                request_id=origin.request_id,
            )
        )
        append_changes(
            connection,
            tables.changes,
            [
                {
                    "revision": revision,
                    "position": position,
                    "kind": mutation.kind.value,
                    "operation": mutation.operation.value,
                    "mutation": _encoder.encode(mutation).decode(),
                    "course_id": place.course_id,
                    "session_id": place.session_id,
                }
                for position, (mutation, place) in enumerate(batch.log)
            ],
        )
        return revision


def _application_order(mutation: Mutation) -> tuple[bool, int]:
    """Deletions first, what refers before what is referred to; then the rest the other way round."""
    place = _UPSERT_ORDER[mutation.kind]
    deletes = mutation.operation is Operation.DELETE
    return (not deletes, -place if deletes else place)


def _well_formed_keys(mutations: Sequence[Mutation]) -> Iterator[Key]:
    """What the mutations look at, but for keys that no database takes: `Batch.apply` refuses those."""
    for mutation in mutations:
        for key in touched_keys(mutation):
            try:
                validate_key(key)
            except InvalidArgumentError:
                continue
            yield key


def _lock_head(connection: Connection) -> int:
    """The head revision. Until the commit no other write gets past here: so revisions have no gaps."""
    statement = select(tables.counter.c.revision)
    if connection.dialect.name == "postgresql":
        statement = statement.with_for_update()
    head: int = connection.execute(statement).scalar_one()
    return head


def _require_shape(request: WriteRequest) -> None:
    count = len(request.mutations)
    if not 1 <= count <= MAX_MUTATIONS_PER_WRITE:
        raise InvalidArgumentError(
            ErrorReason.TOO_MANY_ITEMS if count else ErrorReason.MISSING_FIELD,
            f"mutations has {count} items; send 1 to {MAX_MUTATIONS_PER_WRITE}",
            field="mutations",
            limit=str(MAX_MUTATIONS_PER_WRITE),
        )
    seen = set()
    for mutation in request.mutations:
        if mutation.key in seen:
            raise InvalidArgumentError(
                ErrorReason.DUPLICATE_MUTATION,
                f"mutations name {mutation.key} twice; send one mutation for each entity",
                key=str(mutation.key),
            )
        seen.add(mutation.key)


def _require(batch: Batch, precondition: Precondition) -> None:
    found = batch.find(precondition.key)
    match precondition.expectation:
        case Expectation.EXISTS:
            holds, demand = found is not None, "exist"
        case Expectation.NOT_EXISTS:
            holds, demand = found is None, "not exist"
        case Expectation.AT_VERSION:
            holds = found is not None and found.version == precondition.version
            demand = f"be at version {precondition.version}"
    if not holds:
        actual = "it does not exist" if found is None else f"it is at version {found.version}"
        raise FailedPreconditionError(
            ErrorReason.PRECONDITION_FAILED,
            f"{precondition.key} was to {demand}, but {actual}; read it again",
            key=str(precondition.key),
        )


def _digest(request: WriteRequest) -> str:
    body = _encoder.encode((request.mutations, request.preconditions, request.reason))
    return hashlib.blake2b(body, digest_size=16).hexdigest()


def _recall(connection: Connection, key: str, digest: str, now: Instant) -> int | None:
    known = tables.idempotency_keys
    connection.execute(delete(known).where(known.c.created_at < now - IDEMPOTENCY_RETENTION_US))
    row = connection.execute(select(known).where(known.c.key == key)).one_or_none()
    if row is None:
        return None
    if row.digest != digest:
        raise FailedPreconditionError(
            ErrorReason.IDEMPOTENCY_KEY_REUSED,
            f"idempotency key `{key}` was used for another write; make a new key for each write",
            idempotency_key=key,
        )
    revision: int = row.revision
    return revision


def _remember(connection: Connection, key: str, digest: str, revision: int, now: Instant) -> None:
    known = tables.idempotency_keys
    connection.execute(insert(known).values(key=key, digest=digest, revision=revision, created_at=now))
