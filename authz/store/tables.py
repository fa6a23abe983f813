"""The tables. Text is ordered by bytes on every database; instants are microseconds (`Instant`).

The table of a kind of record is derived from its fields. A change of the fields needs a migration; a test
compares the two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Float,
    ForeignKey,
    FromClause,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    and_,
    event,
    or_,
    text,
)
from sqlalchemy.types import TypeEngine

from authz.domain.entities import KINDS, Kind
from authz.domain.ids import Subject
from authz.domain.kinds.fields import Field, FieldType

metadata = MetaData()

REVISIONS_CHANNEL = "authz_revisions"
"""PostgreSQL only: each commit with revisions notifies this channel of the new head, in decimal."""


def _text() -> TypeEngine[str]:
    return Text().with_variant(Text(collation="C"), "postgresql")


def _key(name: str) -> Column[str]:
    return Column(name, _text(), primary_key=True)


def _texts(*names: str) -> Iterator[Column[str]]:
    for name in names:
        yield Column(name, _text(), nullable=False)


def _numbers(*names: str) -> Iterator[Column[int]]:
    for name in names:
        yield Column(name, BigInteger, nullable=False)


_PARTS = {
    FieldType.SUBJECT: ("type", "id"),
    FieldType.SCOPE: ("kind", "id"),
    FieldType.RESOURCE: ("type", "id"),
}
_COLUMN_TYPES: dict[FieldType, TypeEngine[Any]] = {
    FieldType.FLAG: Boolean(),
    FieldType.INSTANT: BigInteger(),
    FieldType.DURATION: BigInteger(),
    FieldType.NUMBER: BigInteger(),
}
"""The SQL types of fields. A field of any other type is text."""


def parts_of(field: Field) -> tuple[str, ...]:
    """The attributes of a field's value that have a column each. Empty for a value in one column."""
    return _PARTS.get(field.type, ())


def columns_of(fields: Iterable[Field]) -> tuple[str, ...]:
    """The names of the columns that hold some fields, in order."""
    return tuple(
        name
        for field in fields
        for name in ([f"{field.name}_{part}" for part in parts_of(field)] or [field.name])
    )


def has_subject(table: FromClause, field: str, subject: Subject) -> ColumnElement[bool]:
    """In SQL: whether a field of a row is this subject."""
    return and_(table.c[f"{field}_type"] == subject.type.value, table.c[f"{field}_id"] == subject.id)


def may_mention(columns: Iterable[ColumnElement[str]], subject: Subject) -> ColumnElement[bool]:
    """In SQL: whether a text names a subject as `user:<id>`, or one whose id only begins so, or differs in
    case. So callers must also look at the texts: `mentions`."""
    return or_(*(column.contains(str(subject), autoescape=True) for column in columns))


def _columns(fields: Iterable[Field], *, primary_key: bool = False) -> Iterator[Column[Any]]:
    for field in fields:
        kind = _COLUMN_TYPES.get(field.type) or _text()
        for name in columns_of([field]):
            yield Column(name, kind, primary_key=primary_key, autoincrement=False, nullable=field.is_optional)


def _entity_table(kind: Kind) -> Table:
    return Table(
        kind.plural,
        metadata,
        *_columns(kind.key_fields, primary_key=True),
        *_columns(kind.other_fields),
        Column("revision", BigInteger, nullable=False),
        *_indexes(kind),
    )


ENDS = text("ends_at IS NOT NULL AND suspended_until IS NULL AND status IN ('ACTIVE', 'INVITED')")
"""Which memberships say nothing after their end: a completed one gives what its role becomes, and a suspended
one takes roles away. A query that has this text finds them by their index."""
_BY_END = "memberships_by_end"


def _indexes(kind: Kind) -> Iterator[Index]:
    if kind is KINDS["membership"]:
        yield Index(_BY_END, "ends_at")
    for name in kind.lookups:
        yield Index(f"{kind.plural}_by_{name.removesuffix('_id')}", *columns_of(kind.order_by(name)))


ENTITY_TABLES = {kind.name: _entity_table(kind) for kind in KINDS.values()}
"""By kind: the columns of the key (the primary key), those of the other fields, and `revision`.

No foreign keys: what is in a large course outlives its row until it is removed.
"""


@event.listens_for(ENTITY_TABLES["membership"], "before_create")
def _limit_index(table: Table, connection: Connection, **_: object) -> None:
    """Limit the index to what `ENDS` says. Here, since a condition in the declaration names both databases,
    and SQLAlchemy then imports its parts for both at every start."""
    [index] = [each for each in table.indexes if each.name == _BY_END]
    index.dialect_kwargs[f"{connection.dialect.name}_where"] = ENDS


removals = Table(
    "removals",
    metadata,
    _key("root"),
    *_numbers("since", "steps"),
    Column("course_id", _text()),
    Column("session_id", _text()),
    *_texts("actor", "reason", "request_id"),
    Index("removals_by_age", "since", "root"),
)
"""Deletions whose contents are not all removed yet. `root` is the key of the deleted record as JSON, `since`
the revision that deleted it, `course_id` and `session_id` its `ChangeScope`. `steps` grows with each revision
that removes a part."""

counter = Table(
    "counter",
    metadata,
    Column("only", Integer, primary_key=True, autoincrement=False),
    *_numbers("revision"),
    *_texts("database_id"),
    Column("token_key", _text()),
    Column("resumable_from", BigInteger, nullable=False, server_default="0"),
)
"""One row, `only` = 1. The transaction that holds its lock is the only writer. `token_key`, in hexadecimal,
is the secret with which the service signs its tokens. Nobody
continues from a revision before `resumable_from`: changes up to there were rewritten or purged since."""

revisions = Table(
    "revisions",
    metadata,
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    *_texts("actor", "reason", "request_id"),
    *_numbers("committed_at"),
    Column("nonce", BigInteger, nullable=False, server_default="0"),
    Index("revisions_by_time", "committed_at", "revision"),
)
"""`nonce` is that of the transaction."""

changes = Table(
    "changes",
    metadata,
    Column(
        "revision",
        BigInteger,
        ForeignKey("revisions.revision", name="changes_revision_fkey"),
        primary_key=True,
        autoincrement=False,
    ),
    Column("position", Integer, primary_key=True, autoincrement=False),
    *_texts("kind", "operation", "mutation"),
    Column("course_id", _text()),
    Column("session_id", _text()),
    Column("previous", BigInteger),
    Index("changes_by_course", "course_id", "revision", "position"),
    # Of the changes in sessions alone, so that no query for those in none is answered by it.
    Index(
        "changes_by_session",
        "session_id",
        "revision",
        "position",
        sqlite_where=text("session_id IS NOT NULL"),
        postgresql_where=text("session_id IS NOT NULL"),
    ),
)
"""`course_id` and `session_id` are the `ChangeScope`. `previous` is the revision that changed the
record before, 0 for a new record."""

held_changes = Table(
    "held_changes",
    metadata,
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("subject_type", _text()),
    Column("subject_id", _text()),
    Index("held_changes_by_subject", "subject_id", "subject_type"),
)
"""Changes that the hold of a subject has kept from being purged. Without a subject, the hold is over."""

leaves = Table(
    "leaves",
    metadata,
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    *_texts("hash", "text_macs"),
    Column("part", _text()),
    Column("purged", _text(), nullable=False, server_default=""),
)
"""The leaf of each revision in the Merkle tree of the change log, in hexadecimal, and the keyed hashes of the
texts in it that an erasure may empty. The leaf outlives the revision.

`part` is the hash of the largest complete part of the tree that ends with the leaf; NULL if that is the leaf
alone.

`purged` is JSON: the hashes of those changes of a revision that retention has purged, as long as others of it
are there."""

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("only", Integer, primary_key=True, autoincrement=False),
    *_texts("note"),
    *_numbers("size"),
    *_numbers("next_at"),
    Column("decisions_size", BigInteger, nullable=False, server_default="0"),
    Column("published_to", _text(), nullable=False, server_default="[]"),
)
"""One row, `only` = 1: the fields of `SignedCheckpoint`. `published_to` is a JSON array."""

tombstones = Table(
    "tombstones",
    metadata,
    _key("type"),
    _key("id"),
    *_numbers("deleted_at"),
    Index("tombstones_by_age", "deleted_at"),
)
"""The resources that were registered and are not any more, until retention purges them."""

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    _key("actor"),
    _key("key"),
    *_texts("digest"),
    *_numbers("revision", "created_at"),
    Index("idempotency_keys_by_age", "created_at"),
)
"""A key belongs to the caller that sent it: `actor`, as in `revisions`."""

policy_drafts = Table(
    "policy_drafts",
    metadata,
    _key("course_id"),
    _key("id"),
    *_numbers("etag", "base_number"),
    *_texts("files", "author"),
    *_numbers("created_at", "edited_at"),
    Column("publication", _text()),
    Column("publish_at", BigInteger),
    Column("claimed_until", BigInteger),
    Index("policy_drafts_by_time", "publish_at"),
)
"""The fields of `PolicyDraft`, `publication` as JSON; `course_id` is empty for those of the platform.

They are in no change log: nothing decides by them."""

policy_shadows = Table(
    "policy_shadows",
    metadata,
    _key("id"),
    *_numbers("number"),
    *_texts("draft_id", "files"),
    *_numbers("against_number"),
    Column("sample_rate", Float(53), nullable=False),
    *_numbers("budget_us"),
    *_texts("author"),
    *_numbers("started_at", "ends_at"),
    *_texts("tally"),
    Column("course_id", _text(), nullable=False, server_default=""),
    Column("against_course_number", BigInteger, nullable=False, server_default="0"),
    Index("policy_shadows_by_course", "course_id", unique=True),
    Index("policy_shadows_by_end", "ends_at"),
)
"""At most one row for each course, and one for the platform, whose `course_id` is empty: the fields of
`PolicyShadow`, and its `ShadowTally` as JSON."""

decisions = Table(
    "decisions",
    metadata,
    Column("at", BigInteger, primary_key=True, autoincrement=False),
    _key("decision_id"),
    *_texts("method", "code", "caller", "person", "request_id", "subject", "action", "resource"),
    *_texts("course_id", "session_id", "purpose", "reason", "role", "rule"),
    *_texts("policy_version", "course_policy_version"),
    Column("allowed", Boolean, nullable=False),
    *_numbers("revision", "duration_us"),
    Column("leaf", BigInteger),
    Index("decisions_by_subject", "subject", "at", "decision_id"),
    Index("decisions_by_resource", "resource", "at", "decision_id"),
)
"""The fields of `DecisionEntry`, for a decision log that is kept in the database, and the number of the leaf
that the entry is in."""

decision_leaves = Table(
    "decision_leaves",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    *_texts("hash"),
    Column("part", _text()),
    Column("entries", Integer, nullable=False),
    *_numbers("first_at", "last_at"),
    Column("state", _text(), nullable=False, server_default="KEPT"),
    Column("held_by", _text()),
    Index("decision_leaves_by_state", "state", "number"),
)
"""The leaves of the Merkle tree of the decisions, as in `leaves`: each has the entries of one batch, whose
number and times stay when they are purged. `state` is a `BatchState`; `held_by`, of a batch that is held, is
one of those whose hold keeps it."""

decision_tree = Table(
    "decision_tree",
    metadata,
    Column("only", Integer, primary_key=True, autoincrement=False),
    *_numbers("size"),
)
"""One row, `only` = 1: the number of leaves. The transaction that holds its lock is the only one that logs
decisions."""

erasure_steps = Table(
    "erasure_steps",
    metadata,
    _key("pseudonym_type"),
    _key("pseudonym_id"),
    *(Column(name, _text()) for name in ("subject_id", "new_owner_type", "new_owner_id")),
    *_texts("phase", "actor", "request_id", "counts", "kept"),
    *_numbers("position", "steps"),
    Column("erased_at", BigInteger),
    Column("finished_at", BigInteger),
    Index("erasure_steps_by_phase", "phase"),
)
"""The progress and the results of each erasure. It has the subject, and the owner to whom the resources go,
only while it needs them. `position` is the last revision that was rewritten, `erased_at` the first one from
which on nothing names the subject."""

renames = Table(
    "renames",
    metadata,
    Column("revision", BigInteger, primary_key=True, autoincrement=False),
    *_texts("old", "new"),
    *_numbers("renamed_at"),
    Index("renames_by_old", "old"),
    Index("renames_by_new", "new"),
)
"""The subject that a revision renamed, and its new id, both as `user:<id>`. An erasure or an export of one id
names the other. The pseudonym replaces a subject that is erased."""

replicas = Table(
    "replicas",
    metadata,
    _key("name"),
    *_numbers("cleared", "seen_at"),
)
"""The machines that have a replica. In the files of one, nothing is left of what was erased up to the
revision `cleared`."""

watchers = Table(
    "watchers",
    metadata,
    _key("caller"),
    *_numbers("sent", "acknowledged", "seen_at"),
)
"""The fields of `Watcher`."""
