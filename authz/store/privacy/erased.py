"""The index of erased subjects, which writes may not name."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection, and_, select

from authz.domain.entities import ErasureStatus, kind_of
from authz.domain.erasures import PSEUDONYM_PREFIX, Pseudonyms, erased, is_pseudonym, subject_mac
from authz.domain.errors import ErrorReason, FailedPreconditionError
from authz.domain.ids import Subject, SubjectType, is_id, parse_subject
from authz.domain.instants import Instant, format_instant
from authz.domain.mentions import subjects_in
from authz.domain.mutations import Mutation, Operation
from authz.store import tables
from authz.store.bulk import select_by
from authz.store.log.reader import read_token_key
from authz.store.rows import ENTITY_ROWS, subject_of

ERASURES = ENTITY_ROWS["erasure"].table
_STEPS = tables.erasure_steps
_ANY = select(ERASURES.c.mac).limit(1)
_TYPES = frozenset(each.value for each in SubjectType)


class ErasedSubjects:
    """A cache for one transaction. Costs one query as long as nobody was erased."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._are_none: bool | None = None
        self._known: set[Subject] = set()
        self._erased: set[Subject] = set()
        self._pseudonyms: set[Subject] = set()

    def prefetch(self, mutations: Iterable[Mutation]) -> None:
        """Look up the subjects that mutations name, together."""
        if self._are_none is None:
            self._are_none = self._connection.execute(_ANY).first() is None
        if self._are_none:
            return
        named = {subject for mutation in mutations for subject in _named(mutation)}
        new = [each for each in named - self._known if is_id(each.id)]
        self._erased |= erased_among(self._connection, new).keys()
        self._pseudonyms |= pseudonyms_among(self._connection, new)
        self._known |= {*new}

    def require_none(self, mutation: Mutation) -> None:
        """Raise `FailedPreconditionError` (SUBJECT_ERASED) if a mutation names an erased subject and is no
        deletion. A pseudonym may only own a resource, which gives nobody access."""
        self.prefetch([mutation])
        if self._are_none:
            return
        for subject in _named(mutation):
            if subject in self._erased:
                raise erased(subject)
            if subject in self._pseudonyms and kind_of(mutation.target).name != "resource":
                raise is_pseudonym(subject)


def require_not_erased(connection: Connection, subject: Subject) -> None:
    """Raise `FailedPreconditionError` (SUBJECT_ERASED) if a subject was erased or is being erased, or is the
    pseudonym of an erased one."""
    if pseudonyms_among(connection, [subject]):
        raise is_pseudonym(subject)
    if erased_among(connection, [subject]):
        raise erased(subject)


def require_not_erased_since(connection: Connection, names: Iterable[str], time: Instant) -> None:
    """Raise `FailedPreconditionError` (SUBJECT_ERASED) if one of some names is of a subject that was erased
    after a time, also if its id was released since: the logs no longer tell what the subject did then."""
    key = read_token_key(connection)
    macs = {subject_mac(key, parse_subject(name)): name for name in names if _is_subject(name)}
    for row in select_by(connection, ERASURES, ("mac",), [[mac] for mac in macs]):
        if row.started_at > time:
            raise FailedPreconditionError(
                ErrorReason.SUBJECT_ERASED,
                f"{macs[row.mac]} was erased at {format_instant(row.started_at)}, so nothing is known of it"
                " before; ask about a later time, or about somebody else",
                subject=macs[row.mac],
            )


def require_not_erased_after(connection: Connection, subject: Subject, revision: int) -> None:
    """Raise `FailedPreconditionError` (SUBJECT_ERASED) if the erasure of a subject has begun or gone on after
    a revision."""
    mac = subject_mac(read_token_key(connection), subject)
    if any(row.revision > revision for row in select_by(connection, ERASURES, ("mac",), [[mac]])):
        raise FailedPreconditionError(
            ErrorReason.SUBJECT_ERASED,
            f"{subject} is being erased, so this export has ended before it was complete; export again to see"
            " what is left",
            subject=str(subject),
        )


def erased_among(connection: Connection, subjects: Iterable[Subject]) -> dict[Subject, str]:
    """The subjects that are being erased, or were and are not released since, each with its pseudonym as
    `user:<id>`."""
    key = read_token_key(connection)
    macs = {subject_mac(key, subject): subject for subject in subjects}
    rows = select_by(connection, ERASURES, ("mac",), [[mac] for mac in macs])
    # A restore may repeat the erasure of an id that was released after the backup.
    found = [row for row in rows if not row.released or row.status == ErasureStatus.ERASING]
    return {macs[row.mac]: f"{row.pseudonym_type}:{row.pseudonym_id}" for row in found}


def pseudonyms_among(connection: Connection, subjects: Iterable[Subject]) -> set[Subject]:
    """The subjects that are pseudonyms of erased subjects."""
    named = [(each.type, each.id) for each in subjects if each.id.startswith(PSEUDONYM_PREFIX)]
    rows = select_by(connection, ERASURES, ("pseudonym_type", "pseudonym_id"), named)
    return {subject_of(row, "pseudonym") for row in rows}


def pseudonyms_of(connection: Connection, names: Iterable[str]) -> dict[str, str]:
    """The pseudonyms of the erased subjects among some names (`user:<id>`, `service:<id>`)."""
    if connection.execute(_ANY).first() is None:
        return {}
    found = erased_among(connection, (parse_subject(name) for name in names if _is_subject(name)))
    return {str(subject): pseudonym for subject, pseudonym in found.items()}


def erased_since(connection: Connection, revision: int) -> Pseudonyms:
    """The pseudonyms of those who were erased after a revision, and whose id was not released since."""
    same = (ERASURES.c[name] == _STEPS.c[name] for name in ("pseudonym_type", "pseudonym_id"))
    wanted = (
        select(ERASURES).join(_STEPS, and_(*same)).where(_STEPS.c.erased_at > revision, ~ERASURES.c.released)
    )
    found = {row.mac: subject_of(row, "pseudonym") for row in connection.execute(wanted)}
    return Pseudonyms(read_token_key(connection), found)


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
