"""Writes of one transaction: planned one after another in memory, stored together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain

import msgspec
from sqlalchemy import Connection, delete

from authz.domain.entities import KINDS, CourseKey, Key, kind_of
from authz.domain.errors import (
    AuthzError,
    ConflictError,
    ErrorReason,
    InvalidArgumentError,
    precondition_failed,
    result_or_error,
)
from authz.domain.instants import Instant
from authz.domain.mutations import (
    MAX_MUTATIONS_PER_WRITE,
    Expectation,
    ImportBatchResult,
    ImportFault,
    Mutation,
    Operation,
    Precondition,
    WriteRequest,
)
from authz.domain.origin import Origin
from authz.domain.ports import Vocabularies
from authz.domain.tokens import ConsistencyToken
from authz.store import tables
from authz.store.active_policy import require_no_course_policy_since
from authz.store.administrators import Administrators
from authz.store.batch import Batch
from authz.store.contents import cascades, touched_keys
from authz.store.database.sending import sent_together
from authz.store.drafts import require_draft
from authz.store.idempotency import IdempotencyKeys
from authz.store.log.writer import ChangeLog
from authz.store.removals import Root, oldest_removals, store_progress
from authz.store.sharing import Member

MAX_CONTENTS_AT_ONCE = 500
"""How many records a transaction deletes besides those that its mutations name."""
_UPSERT_ORDER = {name: place for place, name in enumerate(KINDS)}


class Transaction:
    """The writes and imports of one transaction. Locks the head of the log when it is made."""

    def __init__(
        self,
        connection: Connection,
        vocabularies: Vocabularies,
        clock: Callable[[], Instant],
        *,
        contents_at_once: int = MAX_CONTENTS_AT_ONCE,
    ) -> None:
        self.connection = connection
        self.log = ChangeLog(connection, clock)
        self.now = self.log.now
        """When it is committed, as the log has it."""
        # By this clock, because the log may be ahead, after a commit of a server whose clock is: no share may
        # end for that.
        self._batch = Batch(connection, vocabularies, max_deletions=contents_at_once, now=self.log.clock_time)
        self.administrators = Administrators(connection, self._batch, vocabularies, self.now)
        self.contents_at_once = contents_at_once

    @property
    def head(self) -> ConsistencyToken:
        """The state after what was appended so far."""
        return self.log.head

    def write(self, requests: Sequence[WriteRequest]) -> list[ConsistencyToken | AuthzError]:
        """Store the writes in order. Returns the state of each, or its error if nothing of it was stored."""
        keys = {(each.origin.actor, each.idempotency_key) for each in requests if each.idempotency_key}
        known = IdempotencyKeys(self.connection, keys, now=self.now)
        faults = [result_or_error(partial(_require_well_formed, each)) for each in requests]
        sound = [request for request, fault in zip(requests, faults, strict=True) if fault is None]
        self._prefetch(
            [mutation for request in sound for mutation in request.mutations],
            (precondition.key for request in sound for precondition in request.preconditions),
        )
        outcomes = [
            result_or_error(partial(self._plan, request, known)) if fault is None else fault
            for request, fault in zip(requests, faults, strict=True)
        ]
        self._store(known)
        return outcomes

    def import_batch(
        self,
        mutations: Sequence[Mutation | AuthzError],
        *,
        offset: int,
        origin: Origin,
        gives_roles_back: bool = True,
    ) -> ImportBatchResult:
        """Store the valid mutations, under one revision. `gives_roles_back` is that of `WriteRequest`."""
        malformed = [None if isinstance(m, AuthzError) else result_or_error(m.validate) for m in mutations]
        validated = [error or each for error, each in zip(malformed, mutations, strict=True)]
        self._prefetch([each for each in validated if isinstance(each, Mutation)])
        applied: list[Mutation] = []
        faults: list[ImportFault] = []
        written = 0
        with self.revision(origin):
            for position, mutation in enumerate(validated, offset):
                try:
                    if isinstance(mutation, AuthzError):
                        raise mutation
                    if self.administrators.may_lower([mutation]):
                        self.administrators.require_kept_by(mutation)
                    written += self._apply(mutation, gives_roles_back=gives_roles_back)
                except AuthzError as error:
                    faults.append(ImportFault(position, error.reason.value, error.message))
                else:
                    applied.append(mutation)
        _delete_policy_work(self.connection, applied)
        return ImportBatchResult(
            written=written, unchanged=len(applied) - written, faults=tuple(faults), head=self.head
        )

    def remove_member(self, member: Member, origin: Origin) -> tuple[ConsistencyToken, bool]:
        """Remove a part of what a member has there, under one revision; return whether that is all."""
        with self.revision(origin) as batch:
            is_all = batch.remove_member(member)
        if is_all:
            store_progress(self.connection, [member])
        return self.head, is_all

    @contextmanager
    def revision(self, origin: Origin) -> Iterator[Batch]:
        """Store what the block does to the batch, under one revision."""
        with self._planned(origin):
            yield self._batch
        self._store()

    def remove_contents(self) -> ConsistencyToken:
        """Remove a part of what deletions have left, each under a revision of its own."""
        done: list[Root] = []
        begun: Root | None = None
        for removal in oldest_removals(self.connection, self.contents_at_once):
            with self._planned(removal.origin, flushes=True):
                is_all = self._batch.remove(removal)
            if not is_all:
                begun = removal.root
                break
            done.append(removal.root)
        self._store()
        store_progress(self.connection, done, begun)
        return self.head

    def _prefetch(self, mutations: Sequence[Mutation], others: Iterable[Key] = ()) -> None:
        """Read in bulk what well-formed mutations need, and other records."""
        self._batch.prefetch(chain(others, chain.from_iterable(map(touched_keys, mutations))))
        self._batch.prefetch_lapsed(
            mutation.key for mutation in mutations if mutation.operation is not Operation.DELETE
        )
        self._batch.erased.prefetch(mutations)

    def _plan(self, request: WriteRequest, known: IdempotencyKeys) -> ConsistencyToken:
        revision = known.recall(request)
        if revision is not None:
            return self.log.state_at(revision)
        fence = request.course_policies_at
        flushes = fence is not None or any(cascades(mutation) for mutation in request.mutations)
        may_lower = self.administrators.may_lower(request.mutations)
        with self._planned(request.origin, flushes=flushes):
            before = self.administrators.coverage() if may_lower else None
            for precondition in request.preconditions:
                _require(self._batch, precondition)
            if fence is not None:
                require_no_course_policy_since(self.connection, fence)
            if request.draft is not None:
                require_draft(self.connection, request.draft)
            for place, mutation in sorted(enumerate(request.mutations), key=_application_order):
                try:
                    self._apply(mutation, gives_roles_back=request.gives_roles_back)
                except AuthzError as error:
                    error.locate(f"mutations[{place}]")
                    raise
            self.administrators.require_kept(before)
        _delete_policy_work(self.connection, request.mutations)
        known.remember(request, self.head.revision)
        return self.head

    def _apply(self, mutation: Mutation, *, gives_roles_back: bool) -> bool:
        if not gives_roles_back:
            self.administrators.require_not_restored_by(mutation)
        return self._batch.apply(_as_seen(self._batch, mutation))

    @contextmanager
    def _planned(self, origin: Origin, *, flushes: bool = False) -> Iterator[None]:
        """Plan what the block does to the batch as the next revision. For `flushes` see `Batch.attempt`."""
        with self._batch.attempt(self.log.head.revision + 1, origin, flushes=flushes) as effects:
            yield
        self.log.append(effects, origin)

    def _store(self, known: IdempotencyKeys | None = None) -> None:
        self._batch.flush()
        rows = self.log.rows()
        if not rows and not (known and known.has_new):
            return
        with sent_together(self.connection) as sender:
            self.log.store(sender, rows)
            if known is not None:
                known.store(sender)


def _delete_policy_work(connection: Connection, mutations: Iterable[Mutation]) -> None:
    """Delete the drafts and the shadows of courses that are deleted."""
    keys = (each.key for each in mutations if each.operation is Operation.DELETE)
    course_ids = [key.id for key in keys if isinstance(key, CourseKey)]
    for table in (tables.policy_drafts, tables.policy_shadows) if course_ids else ():
        connection.execute(delete(table).where(table.c.course_id.in_(course_ids)))


def _application_order(placed: tuple[int, Mutation]) -> tuple[bool, int]:
    """Deletions first, contents before containers; then the rest, containers before contents."""
    _, mutation = placed
    place = _UPSERT_ORDER[kind_of(mutation.target).name]
    deletes = mutation.operation is Operation.DELETE
    return (not deletes, -place if deletes else place)


def _require_well_formed(request: WriteRequest) -> None:
    count = len(request.mutations)
    if not 1 <= count <= MAX_MUTATIONS_PER_WRITE:
        raise InvalidArgumentError(
            ErrorReason.TOO_MANY_ITEMS if count else ErrorReason.MISSING_FIELD,
            f"mutations has {count} items; send 1 to {MAX_MUTATIONS_PER_WRITE}",
            field="mutations",
            limit=str(MAX_MUTATIONS_PER_WRITE),
        )
    for precondition in request.preconditions:
        kind_of(precondition.key).validate_key(precondition.key)
    seen = set()
    for place, mutation in enumerate(request.mutations):
        try:
            mutation.validate()
        except InvalidArgumentError as error:
            error.locate(f"mutations[{place}]")
            raise
        key = mutation.key
        if key in seen:
            raise InvalidArgumentError(
                ErrorReason.DUPLICATE_MUTATION,
                f"mutations name {key} twice; send one mutation for each entity",
                key=str(key),
            )
        seen.add(key)


def _as_seen(batch: Batch, mutation: Mutation) -> Mutation:
    """The mutation as it is logged. Raises `ConflictError` if its record is another one than was seen."""
    if mutation.seen is None:
        return mutation
    found = batch.find(mutation.key)
    if (None if found is None else found.entity) != mutation.seen.record:
        raise ConflictError(
            f"{mutation.key} was changed while it was decided who may change it; read it, and write again",
            key=str(mutation.key),
        )
    return msgspec.structs.replace(mutation, seen=None)


def _require(batch: Batch, precondition: Precondition) -> None:
    found = batch.find(precondition.key)
    match precondition.expectation:
        case Expectation.EXISTS:
            holds, demand = found is not None, "exist"
        case Expectation.NOT_EXISTS:
            holds, demand = found is None, "not exist"
        case Expectation.AT_REVISION:
            holds = found is not None and found.revision == precondition.revision
            demand = f"be at revision {precondition.revision}"
    if not holds:
        problem = f"{precondition.key} does not exist, so nothing is written"
        if found is not None:
            problem = f"{precondition.key} must {demand}, but is at revision {found.revision}; read it again"
        raise precondition_failed(problem, key=str(precondition.key))
