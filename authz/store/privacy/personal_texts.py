"""Where a text may name a subject as `user:<id>`: an export shows it, and an erasure replaces the name."""

from __future__ import annotations

from sqlalchemy import ColumnElement, and_, or_

from authz.domain.ids import Subject
from authz.store import tables
from authz.store.log.mutation_json import json_names
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


def may_name_in_change(subject: Subject) -> ColumnElement[bool]:
    """In SQL: whether a change names a subject, or may. So callers must also look at the decoded mutation."""
    kind, mutation = tables.changes.c.kind, tables.changes.c.mutation
    in_text = and_(kind.in_(RECORD_TEXTS), may_mention([mutation], subject))
    return or_(json_names(mutation, subject), in_text)


def may_name_in_revision(subject: Subject) -> ColumnElement[bool]:
    """In SQL: whether a text of a revision names a subject, or may: as `may_mention`."""
    return may_mention([tables.revisions.c[name] for name in REVISION_TEXTS], subject)
