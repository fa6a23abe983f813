"""Where a text may name a subject as `user:<id>`: an export shows it, and an erasure replaces the name."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import ColumnElement, Connection, and_, or_, select

from authz.domain.ids import Subject
from authz.store import tables
from authz.store.database.engine import stream
from authz.store.log.mutation_json import json_names
from authz.store.rows import ENTITY_ROWS
from authz.store.tables import may_mention

REVISION_TEXTS = ("actor", "reason", "request_id")
"""Columns of a revision of the change log."""
RECORD_TEXTS = {"policy_version": ("author", "reason"), "hold": ("actor", "reason")}
"""Fields of records, by kind. The files of a policy version stay, because they prove what decided when."""
PUBLICATION_TEXTS = ("actor", "author", "error", "reason")
"""Fields of the planned publication of a draft."""
TEXTS = (
    (tables.removals, ("actor", "reason", "request_id")),
    (tables.erasure_steps, ("actor", "request_id")),
    (tables.watchers, ("caller",)),
    (tables.policy_shadows, ("author", "files")),
)
"""Columns of small tables."""


def all_texts(connection: Connection) -> Iterator[str]:
    """Every text that may name a subject, but for those in changes and those that are deleted in a week."""
    records = [(ENTITY_ROWS[kind].table, names) for kind, names in RECORD_TEXTS.items()]
    drafts = (tables.policy_drafts, ("author", "files", "publication"))
    for table, names in ((tables.revisions, REVISION_TEXTS), *records, *TEXTS, drafts):
        for column in (table.c[name] for name in names):
            wanted = select(column).where(column.contains(":")).distinct()
            yield from stream(connection, wanted).scalars()


def may_name_in_change(subject: Subject) -> ColumnElement[bool]:
    """In SQL: whether a change names a subject, or may. So callers must also look at the decoded mutation."""
    kind, mutation = tables.changes.c.kind, tables.changes.c.mutation
    in_text = and_(kind.in_(RECORD_TEXTS), may_mention([mutation], subject))
    return or_(json_names(mutation, subject), in_text)


def may_name_in_revision(subject: Subject) -> ColumnElement[bool]:
    """In SQL: whether a text of a revision names a subject, or may: as `may_mention`."""
    return may_mention([tables.revisions.c[name] for name in REVISION_TEXTS], subject)
