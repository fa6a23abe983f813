"""The one shape in which a write enters, is logged, is watched and reaches every replica."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from authz.domain.entities import Entity, EntityKind, Key, kind_of
from authz.domain.errors import ErrorReason, InvalidArgumentError
from authz.domain.instants import Instant
from authz.domain.tokens import ConsistencyToken
from authz.domain.vocabulary import Vocabulary

MAX_MUTATIONS_PER_WRITE = 1000
MAX_PRECONDITIONS_PER_WRITE = 1000


class Operation(StrEnum):
    """What a mutation does."""

    CREATE = "CREATE"
    TOUCH = "TOUCH"
    DELETE = "DELETE"


class Mutation(msgspec.Struct, frozen=True, gc=False):
    """Create, touch or delete of one entity.

    A CREATE or TOUCH carries the whole entity. A DELETE enters with a key; in the change log it
    carries the entity as it last stood, so that whoever follows the log can unindex it.
    """

    operation: Operation
    target: Entity | Key

    @property
    def key(self) -> Key:
        """The identity of what is written."""
        return self.target.key

    @property
    def kind(self) -> EntityKind:
        """The kind of what is written."""
        return EntityKind(kind_of(self.target).name)

    def validate(self, vocabulary: Vocabulary) -> None:
        """Raise `InvalidArgumentError`, which names the field at fault, if no directory could take it.

        A DELETE needs well-formed ids only, so that records of what a policy no longer declares can be
        deleted.
        """
        kind = kind_of(self.target)
        kind.validate_key(self.key)
        if self.operation is Operation.DELETE:
            return
        if not isinstance(self.target, kind.entity):
            raise InvalidArgumentError(
                ErrorReason.MISSING_FIELD,
                f"{self.operation.value.lower()} of {self.key} carries a key; send the whole entity",
            )
        kind.validate(self.target, vocabulary)


class Expectation(StrEnum):
    """What a precondition demands of its entity."""

    EXISTS = "EXISTS"
    NOT_EXISTS = "NOT_EXISTS"
    AT_VERSION = "AT_VERSION"


class Precondition(msgspec.Struct, frozen=True):
    """A demand on the state just before the write. `version` is read for AT_VERSION only."""

    key: Key
    expectation: Expectation
    version: int = 0


class WriteRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Mutations to apply all or none. `actor` is who the transport says is calling."""

    mutations: tuple[Mutation, ...]
    preconditions: tuple[Precondition, ...] = ()
    idempotency_key: str = ""
    reason: str = ""
    actor: str = "unauthenticated"
    request_id: str = ""


class ImportFault(msgspec.Struct, frozen=True):
    """What was wrong with the mutation at `position` (from 0) of an import."""

    position: int
    reason: str
    message: str


class ImportBatchResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one batch of an import. `head` is the state after it."""

    written: int
    unchanged: int
    faults: tuple[ImportFault, ...]
    head: ConsistencyToken


class ChangeScope(msgspec.Struct, frozen=True):
    """Where the entity of a logged mutation is.

    A course is in itself, a session in itself and its course, a share where its resource is. What is
    in a session names the session's course, too. Neither is set for what belongs to the platform (an
    account, a membership of the platform), nor for what was logged before the log had places: where that was
    is unknown.
    """

    course_id: str | None = None
    session_id: str | None = None


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One committed revision of the change log. `places` says where each of `mutations` is, in order.

    `nonce` is as in `ConsistencyToken`.
    """

    revision: int
    committed_at: Instant
    nonce: int
    actor: str
    reason: str
    request_id: str
    mutations: tuple[Mutation, ...]
    places: tuple[ChangeScope, ...]

    def state(self, database_id: str) -> ConsistencyToken:
        """The state of a database that this leads to."""
        return ConsistencyToken(database_id, self.revision, self.committed_at, self.nonce)


class LocalCommit(msgspec.Struct, frozen=True):
    """What one transaction has just committed, and the state of the database that it follows on."""

    after: ConsistencyToken
    changes: tuple[Change, ...]


class LogTail(msgspec.Struct, frozen=True):
    """What follows a revision, all of it read at once.

    `head` is the last committed state. `after` is the state at the revision asked about, as it is here, None
    when the log does not have it. `changes` are the first of those that follow, gapless.
    """

    head: ConsistencyToken
    after: ConsistencyToken | None
    changes: tuple[Change, ...]


class ChangePart(msgspec.Struct, frozen=True):
    """A stretch of the mutations of one revision. `is_last` when the revision ends with it."""

    change: Change
    is_last: bool


class LogChunk(msgspec.Struct, frozen=True):
    """Parts of the change log without a gap between them, and the `head` when they were read."""

    parts: tuple[ChangePart, ...]
    head: int
