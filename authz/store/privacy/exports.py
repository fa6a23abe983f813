"""Reads everything that the database holds about a subject, at one state and in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, Select, and_, or_, select

from authz.domain.drafts import Publication
from authz.domain.entities import AccessToken, Entity, Hold, PolicyVersion, Resource, Versioned, kind_of
from authz.domain.exports import (
    RESTRICTION_ENTRY,
    ExportedChange,
    ExportedEntry,
    ExportedRecord,
    ExportItem,
    ExportRelation,
    ExportSection,
    masked,
)
from authz.domain.files import files_text, read_files
from authz.domain.ids import ScopeKind, Subject
from authz.domain.instants import format_instant
from authz.domain.mentions import OWN_RECORDS, mentions, subjects_in, with_subjects
from authz.domain.mutations import Mutation
from authz.store import tables
from authz.store.database.engine import stream
from authz.store.log.mutation_json import decode_mutation
from authz.store.log.reader import read_head
from authz.store.privacy.holds import read_holds, restriction_of
from authz.store.privacy.personal_texts import (
    PUBLICATION_TEXTS,
    RECORD_TEXTS,
    REVISION_TEXTS,
    TEXTS,
    may_name_in_change,
    may_name_in_revision,
)
from authz.store.privacy.purge import read_rules
from authz.store.privacy.recipients import askers, watchers
from authz.store.privacy.renames import other_ids
from authz.store.rows import ENTITY_ROWS
from authz.store.shadows import examples_about
from authz.store.tables import has_subject, may_mention

_MUTATIONS_AN_ITEM = 200
_OF_TEXTS = {
    "removals": (ExportSection.CHANGES, "a deletion that goes on"),
    "erasure_steps": (ExportSection.CHANGES, "an erasure"),
    "watchers": (ExportSection.RECIPIENTS, "a watch"),
    "policy_shadows": (ExportSection.POLICY_SHADOW, "a shadow"),
}
"""Where `TEXTS` are exported, and as what."""
_ABOUT, _CONTEXT = ExportRelation.ABOUT, ExportRelation.CONTEXT
_COURSES, _SESSIONS, _MEMBERSHIPS, _RESOURCES, _SHARES = (
    ENTITY_ROWS[name].table for name in ("course", "session", "membership", "resource", "share")
)


class Export:
    """Everything that the store holds about one subject at one state, in bounded memory."""

    def __init__(self, connection: Connection, subject: Subject) -> None:
        self._connection = connection
        self._subject = subject
        self.state = read_head(connection)
        self.rules = tuple(each.entity for each in read_rules(connection).values())

    def items(self) -> Iterator[ExportItem]:
        """Records in an order in which they may be written, then changes in the order of the log, then
        everything else."""
        is_known = False
        for items in (self._records(), self._changes()):
            for item in items:
                is_known = True
                yield item
        yield from self._texts(ExportSection.CHANGES)
        yield from self._idempotency_keys()
        yield from self._drafts()
        yield from self._policy_versions()
        yield from self._holds()
        yield from self._decisions()
        yield from self._shadow()
        yield from self._texts(ExportSection.POLICY_SHADOW)
        yield from self._recipients(is_known=is_known)
        yield from self._texts(ExportSection.RECIPIENTS)
        yield from self._renames()

    def _records(self) -> Iterator[ExportedRecord]:
        """First what those about the subject refer to, so that they may be written in this order."""
        shared = _with_resource(has_subject(_SHARES, "subject", self._subject))
        owned = has_subject(_RESOURCES, "owner", self._subject)
        for name, wanted, relation in (
            ("course", _COURSES.c.id.in_(self._course_ids()), _CONTEXT),
            ("session", _SESSIONS.c.id.in_(self._session_ids()), _CONTEXT),
            ("resource", and_(shared, or_(_RESOURCES.c.owner_id.is_(None), ~owned)), _CONTEXT),
            *(
                (name, has_subject(ENTITY_ROWS[name].table, field, self._subject), _ABOUT)
                for name, field in OWN_RECORDS
            ),
            ("share", _of_owned(owned), _ABOUT),
        ):
            for versioned in self._entities(name, wanted):
                record = _shown(versioned.entity, relation)
                yield ExportedRecord(record, versioned.revision, relation)

    def _entities(self, name: str, wanted: Any) -> Iterator[Versioned[Entity]]:
        stored = ENTITY_ROWS[name]
        order = [stored.table.c[column] for column in stored.key_columns]
        rows = stream(self._connection, select(stored.table).where(wanted).order_by(*order))
        for chunk in rows.partitions():
            yield from stored.versioned(chunk)

    def _scope_ids(self, kind: ScopeKind) -> list[Select[Any]]:
        """The scopes of a kind in which the subject is a member, owns something or is shared something."""
        held = has_subject(_MEMBERSHIPS, "subject", self._subject)
        found = or_(
            has_subject(_RESOURCES, "owner", self._subject),
            _with_resource(has_subject(_SHARES, "subject", self._subject)),
        )
        return [
            select(table.c.scope_id).where(table.c.scope_kind == kind.value, wanted)
            for table, wanted in ((_MEMBERSHIPS, held), (_RESOURCES, found))
        ]

    def _session_ids(self) -> Any:
        first, second = self._scope_ids(ScopeKind.SESSION)
        return first.union(second)

    def _course_ids(self) -> Any:
        of_sessions = select(_SESSIONS.c.course_id).where(
            _SESSIONS.c.course_id.is_not(None), _SESSIONS.c.id.in_(self._session_ids())
        )
        first, second = self._scope_ids(ScopeKind.COURSE)
        return first.union(second, of_sessions)

    def _changes(self) -> Iterator[ExportedChange]:
        changes, revisions = tables.changes, tables.revisions
        statement = (
            select(changes.c.mutation, revisions)
            .outerjoin_from(revisions, changes, revisions.c.revision == changes.c.revision)
            .where(or_(may_name_in_change(self._subject), may_name_in_revision(self._subject)))
            .order_by(revisions.c.revision, changes.c.position)
        )
        for _, of_revision in groupby(stream(self._connection, statement), key=lambda row: row.revision):
            yield from self._change(of_revision)

    def _change(self, rows: Iterator[Row[Any]]) -> Iterator[ExportedChange]:
        found: list[Mutation] = []
        is_shown = False
        for row in rows:
            mutation = None if row.mutation is None else decode_mutation(row.mutation)
            if mutation and (mentions(row.actor, self._subject) or self._names(mutation)):
                found.append(self._masked(mutation))
            if len(found) == _MUTATIONS_AN_ITEM:
                yield self._item(row, found)
                found, is_shown = [], True
        in_texts = any(mentions(getattr(row, name), self._subject) for name in REVISION_TEXTS)
        if found or (in_texts and not is_shown):
            yield self._item(row, found)

    def _names(self, mutation: Mutation) -> bool:
        for record in mutation.records:
            texts = RECORD_TEXTS.get(kind_of(record).name, ())
            if self._subject in subjects_in(record) or any(
                mentions(getattr(record, name), self._subject) for name in texts
            ):
                return True
        return False

    def _item(self, row: Row[Any], mutations: Sequence[Mutation]) -> ExportedChange:
        return ExportedChange(
            committed_at=row.committed_at,
            actor=self._masked_actor(row.actor),
            reason=row.reason,
            request_id=row.request_id,
            mutations=tuple(mutations),
        )

    def _masked(self, mutation: Mutation) -> Mutation:
        target: Any = with_subjects(mutation.target, lambda other: masked(other, self._subject))
        if isinstance(target, PolicyVersion):
            # What its creator says, so it may name anybody.
            author = target.author if mentions(target.author, self._subject) else "somebody else"
            target = msgspec.structs.replace(target, files=files_text({}), author=author)
        if isinstance(target, Hold):
            target = msgspec.structs.replace(target, actor=self._masked_actor(target.actor))
        return Mutation(mutation.operation, _shown(target, _ABOUT))

    def _masked_actor(self, actor: str) -> str:
        """The caller, and the person it acted for if that is the subject."""
        caller, acts, person = actor.partition(" for ")
        if not acts or mentions(actor, self._subject):
            return actor
        return f"{caller} for {person.partition(':')[0]}:other"

    def _idempotency_keys(self) -> Iterator[ExportedEntry]:
        keys = tables.idempotency_keys
        statement = select(keys).where(may_mention([keys.c.actor, keys.c.key], self._subject))
        for row in stream(self._connection, statement.order_by(keys.c.actor, keys.c.key)):
            if mentions(row.actor, self._subject) or mentions(row.key, self._subject):
                by = self._masked_actor(row.actor)
                text = f"a write of {by}, which is answered again for this key"
                yield ExportedEntry(ExportSection.IDEMPOTENCY_KEYS, row.key, text, row.created_at)

    def _drafts(self) -> Iterator[ExportedEntry]:
        drafts = tables.policy_drafts
        section = ExportSection.POLICY_DRAFTS
        columns = (drafts.c.author, drafts.c.publication, drafts.c.files)
        statement = select(drafts).where(may_mention(columns, self._subject))
        # One at a time: the files of a draft may be large.
        rows = stream(self._connection, statement.order_by(drafts.c.course_id, drafts.c.id), rows_at_once=1)
        for row in rows:
            name = f"draft {row.id}" + (f" of course:{row.course_id}" if row.course_id else "")
            if mentions(row.author, self._subject):
                yield ExportedEntry(section, name, f"author: {row.author}", row.created_at)
            if row.publication is not None:
                publication = msgspec.json.decode(row.publication, type=Publication)
                for field in PUBLICATION_TEXTS:
                    if mentions(text := getattr(publication, field), self._subject):
                        yield ExportedEntry(section, name, f"{field} of publication: {text}", row.edited_at)
            yield from self._lines(section, name, row.files)

    def _policy_versions(self) -> Iterator[ExportedEntry]:
        versions = ENTITY_ROWS["policy_version"].table
        section = ExportSection.POLICY_VERSIONS
        columns = (versions.c.author, versions.c.reason, versions.c.files)
        order = (versions.c.scope_kind, versions.c.scope_id, versions.c.number)
        statement = select(versions).where(may_mention(columns, self._subject)).order_by(*order)
        # One at a time: the files of a version may be large.
        for row in stream(self._connection, statement, rows_at_once=1):
            whose = f"{row.scope_kind}:{row.scope_id}" if row.scope_id else "the platform"
            name = f"version {row.number} of the policy of {whose}"
            for field in RECORD_TEXTS["policy_version"]:
                text = getattr(row, field)
                if mentions(text, self._subject):
                    yield ExportedEntry(section, name, f"{field}: {text}", row.created_at)
            yield from self._lines(section, name, row.files)

    def _renames(self) -> Iterator[ExportedEntry]:
        for other, at in other_ids(self._connection, self._subject).items():
            text = "another id of the subject, by a rename; export it, too, unless it is somebody else's now"
            yield ExportedEntry(ExportSection.RENAMES, other, text, at)

    def _holds(self) -> Iterator[ExportedEntry]:
        for hold in (each.entity for each in read_holds(self._connection)):
            if hold.subject == self._subject:
                yield ExportedEntry(ExportSection.HOLDS, "hold", hold.reason, hold.since)
            for name in RECORD_TEXTS["hold"]:
                if mentions(text := getattr(hold, name), self._subject):
                    yield ExportedEntry(ExportSection.HOLDS, "a hold", f"{name}: {text}")
        restricted = restriction_of(self._connection, self._subject)
        if restricted is not None:
            since = restricted.restriction.entity.since
            yield ExportedEntry(ExportSection.HOLDS, RESTRICTION_ENTRY, restricted.reason, since)

    def _shadow(self) -> Iterator[ExportedEntry]:
        for each in examples_about(self._connection, self._subject):
            what = str(each.resource) if each.resource.id else f"a new {each.resource.type}"
            text = f"asked about {self._subject}: {each.cell.action} {what} in {each.scope}: {each.cell}"
            yield ExportedEntry(ExportSection.POLICY_SHADOW, "example of the shadow", text, each.at)

    def _decisions(self) -> Iterator[ExportedEntry]:
        table, named = tables.decisions, str(self._subject)
        wanted = or_(*(table.c[name] == named for name in ("subject", "person", "caller")))
        rows = select(table).where(wanted).order_by(table.c.at, table.c.decision_id)
        for row in stream(self._connection, rows):
            by = self._masked_actor(f"{row.caller} for {row.person}" if row.person else row.caller)
            about = row.subject if row.subject in ("", named) else "somebody else"
            text = f"{by} called {row.method}" + (f" about {about}" if about else "")
            asked = " ".join(filter(None, (row.action, row.resource)))
            answer = " ".join(filter(None, ("allowed" if row.allowed else "denied", row.reason)))
            text = ": ".join(filter(None, (text, asked, answer)))
            yield ExportedEntry(ExportSection.DECISIONS, row.decision_id, text, row.at)

    def _recipients(self, *, is_known: bool) -> Iterator[ExportedEntry]:
        """Who asked about the subject, and, if anything `is_known` of it, who watches changes."""
        section = ExportSection.RECIPIENTS
        for asker in askers(self._connection, self._subject):
            since = format_instant(asker.first_at)
            text = f"asked {asker.times} about {self._subject} since {since}"
            yield ExportedEntry(section, asker.caller, text, asker.last_at)
        for watcher in watchers(self._connection) if is_known else ():
            text = f"watches changes of the directory, also those about {self._subject} in what it watches"
            yield ExportedEntry(section, watcher.caller, text, watcher.seen_at)

    def _texts(self, section: ExportSection) -> Iterator[ExportedEntry]:
        for table, names in TEXTS:
            of_section, what = _OF_TEXTS[table.name]
            if of_section is not section:
                continue
            columns = [table.c[name] for name in names]
            wanted = select(*columns).where(may_mention(columns, self._subject)).order_by(*table.primary_key)
            for row in stream(self._connection, wanted, rows_at_once=1):
                for name, text in row._mapping.items():
                    if name == "files":
                        yield from self._lines(section, what, text)
                    elif mentions(text, self._subject):
                        yield ExportedEntry(section, what, f"{name}: {text}")

    def _lines(self, section: ExportSection, name: str, files: str) -> Iterator[ExportedEntry]:
        """The lines of files that name the subject."""
        for file, text in read_files(files).items():
            for number, line in enumerate(text.splitlines(), 1):
                if mentions(line, self._subject):
                    yield ExportedEntry(section, f"{name}, {file}:{number}", line.strip())


def _with_resource(wanted: Any) -> Any:
    """Whether a resource has a share that is wanted."""
    found = select(_SHARES.c.resource_id).where(
        wanted, _SHARES.c.resource_type == _RESOURCES.c.type, _SHARES.c.resource_id == _RESOURCES.c.id
    )
    return found.exists()


def _of_owned(owned: Any) -> Any:
    """Whether a share is of a resource of the subject, with somebody else."""
    found = select(_RESOURCES.c.id).where(
        owned,
        _RESOURCES.c.type == _SHARES.c.resource_type,
        _RESOURCES.c.id == _SHARES.c.resource_id,
        or_(_SHARES.c.subject_id != _RESOURCES.c.owner_id, _SHARES.c.subject_type != _RESOURCES.c.owner_type),
    )
    return found.exists()


def _shown(record: Any, relation: ExportRelation) -> Any:
    """A record as it is exported: without the owner if that is somebody else, and without a digest."""
    if relation is _CONTEXT and isinstance(record, Resource):
        return msgspec.structs.replace(record, owner=None)
    if isinstance(record, AccessToken):
        return msgspec.structs.replace(record, digest="")
    return record
