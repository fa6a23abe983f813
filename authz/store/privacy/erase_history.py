"""Erases a subject from the history: a pseudonym replaces it, so that data about others is unchanged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, Table, and_, or_, select, update

from authz.domain.drafts import Publication
from authz.domain.entities import Hold, Membership, kind_of
from authz.domain.ids import Subject
from authz.domain.mentions import mentions, mentions_id, subjects_in, with_subjects, without_mentions
from authz.domain.mutations import Mutation
from authz.store import tables
from authz.store.log.mutation_json import decode_mutation, encode_mutation
from authz.store.privacy.personal_texts import (
    PUBLICATION_TEXTS,
    RECORD_TEXTS,
    REVISION_TEXTS,
    TEXTS,
    may_name_in_change,
    may_name_in_revision,
)
from authz.store.privacy.renames import erase_renames
from authz.store.shadows import erase_examples
from authz.store.tables import may_mention

REVISIONS_AT_ONCE = 100
"""Revisions that a step rewrites at most."""
CHANGES_SEARCHED = 500
"""Changes that a step searches, and at most rewrites, about: writes wait for the step."""
_LOST_PUBLICATION = "who scheduled this was erased; schedule it again"
_changes, _revisions = tables.changes, tables.revisions


def find_revisions(
    connection: Connection, subjects: Sequence[Subject], after: int
) -> tuple[list[int], int | None]:
    """Search the next part of the log for revisions that name one of the subjects in some way.

    Returns them, and the revision through which the log is searched; None at its end.
    """
    in_changes = select(_changes.c.revision).where(
        _changes.c.revision == _revisions.c.revision, or_(*map(may_name_in_change, subjects))
    )
    in_texts = map(may_name_in_revision, subjects)
    through = end_of_part(connection, after)
    part = _revisions.c.revision > after
    if through is not None:
        part = and_(part, _revisions.c.revision <= through)
    wanted = select(_revisions.c.revision).where(part, or_(in_changes.exists(), *in_texts))
    found = [*connection.scalars(wanted.order_by(_revisions.c.revision).limit(REVISIONS_AT_ONCE))]
    if len(found) == REVISIONS_AT_ONCE:
        through = found[-1]
    return found, through


def end_of_part(connection: Connection, after: int) -> int | None:
    """The revision with which the next part of the log ends; None for its last part."""
    ends = []
    for table in (_changes, _revisions):
        rows = select(table.c.revision).where(table.c.revision > after).order_by(*table.primary_key)
        ends.append(connection.scalar(rows.offset(CHANGES_SEARCHED).limit(1)))
    return min((end for end in ends if end is not None), default=None)


def erase_revisions(
    connection: Connection, subject: Subject, pseudonym: Subject, revisions: Sequence[int], reason: str
) -> Counter[str]:
    """Rewrite some revisions of the change log. `reason` is that of the erasure, which stays."""
    counts: Counter[str] = Counter()
    rows = connection.execute(select(_revisions).where(_revisions.c.revision.in_(revisions))).all()
    for head in rows:
        wanted = select(_changes).where(_changes.c.revision == head.revision)
        changes = [(row, decode_mutation(row.mutation)) for row in connection.execute(wanted)]
        about = [(row, each) for row, each in changes if any(subject in subjects_in(r) for r in each.records)]
        for row, mutation in changes:
            text = encode_mutation(_renamed(mutation, subject, pseudonym))
            if text != row.mutation:
                connection.execute(update(_changes).where(_is(_changes, row)).values(mutation=text))
                counts["changes rewritten"] += 1
        is_concerned = bool(about) or mentions(head.actor, subject)
        only = len(about) == len(changes) and head.reason != reason
        if texts := _texts(head, REVISION_TEXTS, subject, pseudonym, is_concerned=is_concerned, only=only):
            connection.execute(update(_revisions).where(_is(_revisions, head)).values(**texts))
            counts["revisions rewritten"] += 1
    return counts


def _renamed(mutation: Mutation, subject: Subject, pseudonym: Subject) -> Mutation:
    target, before = (
        None if each is None else without_subject(each, subject, pseudonym)
        for each in (mutation.target, mutation.before)
    )
    return msgspec.structs.replace(mutation, target=target, before=before)


def without_subject(record: Any, subject: Subject, pseudonym: Subject) -> Any:
    """A record with the pseudonym for the subject, without what a source called it and why it was held."""
    if isinstance(record, Membership) and record.subject == subject:
        record = msgspec.structs.replace(record, source_ref="")
    if isinstance(record, Hold) and record.subject == subject:
        record = msgspec.structs.replace(record, reason="")
    if names := RECORD_TEXTS.get(kind_of(record).name):
        texts = _renamed_texts(record, names, subject, pseudonym)
        record = msgspec.structs.replace(record, **texts)
    return with_subjects(record, lambda each: pseudonym if each == subject else each)


def _texts(
    row: Row[Any],
    names: Sequence[str],
    subject: Subject,
    pseudonym: Subject,
    *,
    is_concerned: bool,
    only: bool = False,
) -> dict[str, str]:
    """The columns of a row that change. What is the subject's loses a text that names it without its type,
    and, if it is about nobody else, the reason."""
    texts = _renamed_texts(row, names, subject, pseudonym)
    for name in {"reason", "request_id"}.intersection(names) if is_concerned else ():
        text = texts.get(name, getattr(row, name))
        if text and (mentions_id(text, subject) or (only and name == "reason")):
            texts[name] = ""
    return texts


def _renamed_texts(record: Any, names: Iterable[str], subject: Subject, pseudonym: Subject) -> dict[str, Any]:
    """The texts of a record or a row that name the subject, with the pseudonym in its place."""
    before = {name: getattr(record, name) for name in names}
    after = {name: without_mentions(text, subject, str(pseudonym)) for name, text in before.items()}
    return {name: text for name, text in after.items() if text != before[name]}


def _is(table: Table, row: Row[Any]) -> ColumnElement[bool]:
    return and_(*(column == getattr(row, column.name) for column in table.primary_key))


def erase_rest(connection: Connection, subject: Subject, pseudonym: Subject) -> Counter[str]:
    """Erase the subject from drafts, and what else keeps texts."""
    counts = Counter(
        {
            "drafts rewritten": _rewrite_drafts(connection, subject, pseudonym),
            "examples of a shadow deleted": erase_examples(connection, subject),
        }
    )
    erase_renames(connection, subject, pseudonym)
    for table, names in TEXTS:
        # A step of each erasure that ever was is among them.
        named = may_mention([table.c[name] for name in names], subject)
        for row in connection.execute(select(table).where(named).with_for_update()).all():
            is_by_subject = mentions(getattr(row, "actor", ""), subject)
            if texts := _texts(row, names, subject, pseudonym, is_concerned=is_by_subject):
                connection.execute(update(table).where(_is(table, row)).values(**texts))
    return +counts


def _rewrite_drafts(connection: Connection, subject: Subject, pseudonym: Subject) -> int:
    table, rewritten = tables.policy_drafts, 0
    for row in connection.execute(select(table).with_for_update()).all():
        values = _renamed_texts(row, ("author", "files"), subject, pseudonym)
        if row.publication is not None:
            publication = msgspec.json.decode(row.publication, type=Publication)
            without = _without_person(publication, subject, pseudonym)
            if without != publication:
                encoded = msgspec.json.encode(without).decode()
                values |= {"publication": encoded, "publish_at": without.due_at}
        if values:
            connection.execute(update(table).where(_is(table, row)).values(**values, etag=row.etag + 1))
            rewritten += 1
    return rewritten


def _without_person(publication: Publication, subject: Subject, pseudonym: Subject) -> Publication:
    """A publication without the subject: if it is who scheduled it, it is not published."""
    renamed = _renamed_texts(publication, PUBLICATION_TEXTS, subject, pseudonym)
    for name in ("caller", "person"):
        if getattr(publication, name) == subject:
            renamed |= {name: pseudonym, "error": _LOST_PUBLICATION}
    return msgspec.structs.replace(publication, **renamed)
