"""The index of erased subjects, which writes may not name."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, select

from authz.domain.entities import kind_of
from authz.domain.erasures import PSEUDONYM_PREFIX, erased, is_pseudonym, subject_mac
from authz.domain.ids import Subject, SubjectType, is_id, parse_subject
from authz.domain.mentions import subjects_in
from authz.domain.mutations import Mutation, Operation
from authz.store.bulk import select_by
from authz.store.log_reader import read_token_key
from authz.store.rows import ENTITY_ROWS

ERASURES = ENTITY_ROWS["erasure"].table
_ANY = select(ERASURES.c.mac).limit(1)
_TYPES = frozenset(each.value for each in SubjectType)


class ErasedSubjects:
    """What one transaction knows of them. Costs one query as long as nobody was erased."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._key: bytes | None = None
        self._are_none: bool | None = None
        self._known: dict[Subject, bool] = {}
        self._pseudonyms: set[Subject] = set()

    def learn(self, mutations: Iterable[Mutation]) -> None:
        """Look up the subjects that mutations name, together."""
        if self._are_none is None:
            self._are_none = self._connection.execute(_ANY).first() is None
        if self._are_none:
            return
        named = {subject for mutation in mutations for subject in _named(mutation)}
        self._look_up([each for each in named - self._known.keys() if is_id(each.id)])

    def _look_up(self, subjects: list[Subject]) -> None:
        if not subjects:
            return
        if self._key is None:
            self._key = read_token_key(self._connection)
        macs = {subject: subject_mac(self._key, subject) for subject in subjects}
        rows = select_by(self._connection, ERASURES, ("mac",), [[mac] for mac in macs.values()])
        self._pseudonyms |= pseudonyms_among(self._connection, subjects)
        found = {row.mac for row in rows if not row.released}
        self._known |= {subject: mac in found for subject, mac in macs.items()}

    def require_none(self, mutation: Mutation) -> None:
        """Raise `FailedPreconditionError` (SUBJECT_ERASED) if a mutation names an erased subject and is no
        deletion. A pseudonym may only own a resource, which gives nobody access."""
        self.learn([mutation])
        if self._are_none:
            return
        for subject in _named(mutation):
            if self._known.get(subject):
                raise erased(subject)
            if subject in self._pseudonyms and kind_of(mutation.target).name != "resource":
                raise is_pseudonym(subject)


def pseudonyms_among(connection: Connection, subjects: Iterable[Subject]) -> set[Subject]:
    """Those of some subjects that are pseudonyms of erased ones."""
    named = [(each.type, each.id) for each in subjects if each.id.startswith(PSEUDONYM_PREFIX)]
    rows = select_by(connection, ERASURES, ("pseudonym_type", "pseudonym_id"), named)
    return {Subject(SubjectType(row.pseudonym_type), row.pseudonym_id) for row in rows}


def pseudonyms_of(connection: Connection, names: Iterable[str]) -> dict[str, str]:
    """The pseudonyms of those of some texts, `user:<id>` or `service:<id>`, that name an erased subject."""
    if connection.execute(_ANY).first() is None:
        return {}
    key = read_token_key(connection)
    macs = {subject_mac(key, parse_subject(name)): name for name in names if _is_subject(name)}
    rows = select_by(connection, ERASURES, ("mac",), [[mac] for mac in macs])
    return {macs[row.mac]: f"{row.pseudonym_type}:{row.pseudonym_id}" for row in rows if not row.released}


def _is_subject(text: str) -> bool:
    kind, _, id_ = text.partition(":")
    return kind in _TYPES and bool(is_id(id_))


def _named(mutation: Mutation) -> tuple[Subject, ...]:
    if mutation.operation is Operation.DELETE:
        return ()
    if mutation.operation is Operation.UPDATE:
        given = (value for _, value in mutation.values if isinstance(value, Subject))
        return (*subjects_in(mutation.target), *given)
    return subjects_in(mutation.target)
