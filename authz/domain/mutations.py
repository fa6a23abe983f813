"""Mutations: the one form in which a write enters, is logged, is watched and reaches every replica."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from authz.domain.drafts import PolicyDraft
from authz.domain.entities import Entity, EntityKind, Key, kind_of
from authz.domain.errors import ErrorReason, InvalidArgumentError
from authz.domain.ids import Subject
from authz.domain.instants import Instant
from authz.domain.origin import Origin
from authz.domain.tokens import ConsistencyToken

MAX_MUTATIONS_PER_WRITE = 1000
MAX_PRECONDITIONS_PER_WRITE = 1000


class Operation(StrEnum):
    """What a mutation does."""

    CREATE = "CREATE"
    TOUCH = "TOUCH"
    UPDATE = "UPDATE"
    DELETE = "DELETE"


class Seen(msgspec.Struct, frozen=True, gc=False):
    """A record as it was when somebody's right to change it was decided; None if there was none."""

    record: Entity | None


class Mutation(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Create, touch, update or delete of one entity.

    A CREATE or TOUCH carries the whole entity. An UPDATE enters with a key and the new `values` of some
    fields by name; in the change log it is the TOUCH of the entity that it leads to. A DELETE enters with a
    key; in the change log it carries the entity as it last was, so that a follower can remove its index
    entries. The change log alone has, with a TOUCH of what was there, the entity as it was `before`.
    """

    operation: Operation
    target: Entity | Key
    values: tuple[tuple[str, Any], ...] = ()
    before: Entity | None = None
    seen: Seen | None = None
    """Of a mutation for a person: it is refused if the record is another one by now. Not logged."""

    @property
    def key(self) -> Key:
        """The key of the entity."""
        return self.target.key

    @property
    def records(self) -> tuple[Entity | Key, ...]:
        """What it carries: of a mutation in the change log, the entity as it is and, if it has it, as it was
        before."""
        return (self.target,) if self.before is None else (self.target, self.before)

    @property
    def kind(self) -> EntityKind:
        """The kind of the entity."""
        return EntityKind(kind_of(self.target).name)

    def validate(self) -> None:
        """Raise `InvalidArgumentError`, which names the malformed field, if the mutation is malformed.

        Whether an entity is valid by a policy is for `Kind.validate_rule`. The values of an UPDATE are
        validated with the entity that it leads to.
        """
        kind = kind_of(self.target)
        kind.validate_key(self.target)
        if self.operation is Operation.DELETE:
            return
        if self.operation is Operation.UPDATE:
            kind.validate_update(self.values)
            return
        self.require_entity()
        kind.validate_fields(self.target)

    def require_entity(self) -> None:
        """Raise `InvalidArgumentError` if a CREATE or TOUCH has only a key: the fields of an entity would get
        their defaults."""
        writes_all = self.operation in (Operation.CREATE, Operation.TOUCH)
        if writes_all and not isinstance(self.target, kind_of(self.target).entity):
            raise InvalidArgumentError(
                ErrorReason.MISSING_FIELD,
                f"{self.operation.value.lower()} of {self.key} carries a key; send the whole entity",
            )


def update(key: Key, **values: Any) -> Mutation:
    """The UPDATE that gives fields of a record new values: `update(CourseKey("c"), ai_enabled=True)`."""
    return Mutation(Operation.UPDATE, key, tuple(values.items()))


class Expectation(StrEnum):
    """What a precondition requires of its entity."""

    EXISTS = "EXISTS"
    NOT_EXISTS = "NOT_EXISTS"
    AT_REVISION = "AT_REVISION"


class Precondition(msgspec.Struct, frozen=True):
    """A requirement on the state just before the write. `revision` is read only for AT_REVISION."""

    key: Key
    expectation: Expectation
    revision: int = 0


class WriteRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Mutations to apply atomically.

    With `course_policies_at`, the write is made only if no course's policy was activated after that revision;
    with `draft`, only if that draft was not deleted. Without `gives_roles_back`, it ends no suspension of
    somebody with a role on the platform.
    """

    mutations: tuple[Mutation, ...]
    preconditions: tuple[Precondition, ...] = ()
    idempotency_key: str = ""
    origin: Origin = Origin()
    course_policies_at: int | None = None
    draft: PolicyDraft | None = None
    gives_roles_back: bool = True

    @property
    def takes_access_away(self) -> bool:
        """Whether every mutation deletes or suspends."""
        return all(_takes_access_away(mutation) for mutation in self.mutations)


def _takes_access_away(mutation: Mutation) -> bool:
    if mutation.operation in (Operation.DELETE, Operation.CREATE):
        return mutation.operation is Operation.DELETE
    values = dict(mutation.values)
    status, until = (
        values.get(name, getattr(mutation.target, name, None)) for name in ("status", "suspended_until")
    )
    return status == "SUSPENDED" or until is not None


class ImportFault(msgspec.Struct, frozen=True):
    """The error of the mutation at `position` (from 0) of an import."""

    position: int
    reason: str
    message: str


class ImportBatchResult(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one batch of an import. `head` is the state after the batch."""

    written: int
    unchanged: int
    faults: tuple[ImportFault, ...]
    head: ConsistencyToken


class ChangeScope(msgspec.Struct, frozen=True):
    """The course and session of the entity of a logged mutation.

    A course is in itself, a session in itself and its course, a share in the scope of its resource. An entity
    in a session has the course of the session, too. Neither is set for an entity of the platform (an account,
    a membership on the platform).
    """

    course_id: str | None = None
    session_id: str | None = None


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One committed revision of the change log. `scopes` has the scope of each of `mutations`, in order.

    `nonce` is that of `ConsistencyToken`. `erasing` has the subjects whose erasure begins with this change,
    where a watch reads it.
    """

    revision: int
    committed_at: Instant
    nonce: int
    actor: str
    reason: str
    request_id: str
    mutations: tuple[Mutation, ...]
    scopes: tuple[ChangeScope, ...]
    erasing: tuple[Subject, ...] = ()

    def state(self, database_id: str) -> ConsistencyToken:
        """The state of a database after this change."""
        return ConsistencyToken(database_id, self.revision, self.committed_at, self.nonce)


class LocalCommit(msgspec.Struct, frozen=True):
    """The changes that one transaction has just committed, and the state of the database before them."""

    after: ConsistencyToken
    changes: tuple[Change, ...]


class LogTail(msgspec.Struct, frozen=True):
    """The changes after a revision, all read in one transaction.

    `head` is the last committed state. `after` is the state at that revision in this database, None if the
    log does not have it. `changes` are the first changes after it, without gaps.
    """

    head: ConsistencyToken
    after: ConsistencyToken | None
    changes: tuple[Change, ...]


class ChangePart(msgspec.Struct, frozen=True):
    """Consecutive mutations of one revision. `is_last` if they are the last ones."""

    change: Change
    is_last: bool


class LogChunk(msgspec.Struct, frozen=True):
    """Consecutive parts of the change log, and the `head` at the time they were read."""

    parts: tuple[ChangePart, ...]
    head: int
