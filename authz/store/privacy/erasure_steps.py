"""The progress of erasures, and the step that begins one."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, and_, case, func, insert, select, update

from authz.domain.entities import Erasure, ErasureStatus
from authz.domain.erasures import PSEUDONYM_PREFIX, ErasureRequest, subject_mac
from authz.domain.errors import malformed, precondition_failed
from authz.domain.ids import Subject
from authz.domain.mentions import mentions_id, subjects_in_texts
from authz.domain.origin import Origin
from authz.store import tables
from authz.store.log.reader import read_token_key
from authz.store.privacy.erased import ERASURES, require_not_erased
from authz.store.privacy.holds import require_no_hold
from authz.store.rows import ENTITY_ROWS, subject_of
from authz.store.tables import has_subject
from authz.store.write import Transaction

_PSEUDONYM_BYTES = 16
_STEPS = tables.erasure_steps
_RESOURCES = ENTITY_ROWS["resource"].table
_WITH_REASON = select(_STEPS, ERASURES.c.reason).join(
    ERASURES,
    and_(*(ERASURES.c[name] == _STEPS.c[name] for name in ("pseudonym_type", "pseudonym_id"))),
)
_IN_ORDER = (_STEPS.c.position, _STEPS.c.pseudonym_type, _STEPS.c.pseudonym_id)


class Phase(StrEnum):
    """What the next step of an erasure does."""

    RECORDS = "records"
    WAIT = "wait"
    HISTORY = "history"
    FILES = "files"
    LOG = "log"
    DONE = "done"


_FIRST = (Phase.RECORDS, Phase.HISTORY, Phase.FILES, Phase.LOG, Phase.WAIT)
"""The order of the phases. Access ends before a history is rewritten. Those whose history is rewritten are
completed before others begin theirs: so each erasure ends, although more begin all the time."""


class Step(msgspec.Struct, frozen=True):
    """An erasure under way. `subject` is the pseudonym, too, once the history no longer names the subject."""

    pseudonym: Subject
    subject: Subject
    new_owner: Subject | None
    phase: Phase
    position: int
    steps: int
    origin: Origin
    counts: dict[str, int]

    @property
    def owner(self) -> Subject:
        """Whose the resources of the subject become: the named owner's, or nobody's."""
        return self.new_owner or self.pseudonym

    def __str__(self) -> str:
        return f"{self.pseudonym.id} {self.phase}"


def begin(transaction: Transaction, request: ErasureRequest) -> Subject:
    """Write the first revision of an erasure; return its pseudonym. From then on it happens.

    Raises `FailedPreconditionError` for a subject that is held, was erased, is to get the resources of
    somebody who is being erased, is the last to administer the platform, or owns something that the request
    gives to nobody; `InvalidArgumentError` for a request that contradicts itself.
    """
    connection, subject = transaction.connection, request.subject
    key = read_token_key(connection)
    _require_meaningful(connection, request)
    for each in (subject, request.resources_to):
        if each is not None:
            require_not_erased(connection, each)
    require_not_new_owner(connection, subject)
    transaction.administrators.require_kept_without(subject)
    pseudonym = Subject(subject.type, PSEUDONYM_PREFIX + secrets.token_hex(_PSEUDONYM_BYTES))
    record = Erasure(
        pseudonym=pseudonym,
        mac=subject_mac(key, subject),
        status=ErasureStatus.ERASING,
        started_at=transaction.now,
        reason=request.origin.reason,
    )
    with transaction.revision(request.origin) as batch:
        batch.rewrite([record])
    insert_step(connection, pseudonym, subject, request.origin, new_owner=request.resources_to)
    return pseudonym


def _require_meaningful(connection: Connection, request: ErasureRequest) -> None:
    subject, new_owner = request.subject, request.resources_to
    require_no_hold(connection, subject, "nothing is erased")
    for name in ("reason", "request_id"):
        if mentions_id(getattr(request.origin, name), subject):
            raise malformed(name, "names the subject, and it outlives the erasure; leave the name out")
    if named := sorted(map(str, subjects_in_texts([request.origin.reason]))):
        problem = f"names {named[0]}, who may be erased, too, and it stays"
        raise malformed("reason", f"{problem}; leave the name out")
    if new_owner == subject:
        raise malformed("resources_to", f"is {subject}, who is erased; name somebody else")
    if new_owner is None and not request.orphans:
        owned = select(func.count()).select_from(_RESOURCES).where(has_subject(_RESOURCES, "owner", subject))
        if count := connection.execute(owned).scalar_one():
            raise precondition_failed(
                f"{subject} owns {count} resources; give them to somebody with `resources_to`, or leave them"
                " without an owner with `orphan_resources`",
                subject=str(subject),
            )


def require_not_new_owner(connection: Connection, subject: Subject) -> None:
    """Raise `FailedPreconditionError` if an erasure under way still gives resources to a subject: it would
    name the subject again when that is gone."""
    if connection.execute(select(_STEPS).where(has_subject(_STEPS, "new_owner", subject))).first():
        raise precondition_failed(
            f"{subject} is getting the resources of somebody who is being erased; try again when that erasure"
            " is complete",
            subject=str(subject),
        )


def unreleased(connection: Connection, mac: str) -> list[Erasure]:
    """The erasures of the subject with an HMAC after which it was not released."""
    stored = ENTITY_ROWS["erasure"]
    rows = connection.execute(select(ERASURES).where(ERASURES.c.mac == mac, ~ERASURES.c.released)).all()
    return [*stored.entities(rows)]


def next_step(connection: Connection) -> Step | None:
    """The first erasure that is not done, of several in a phase the one that waits longest; None if there is
    none."""
    rank = case({phase.value: rank for rank, phase in enumerate(_FIRST)}, value=_STEPS.c.phase)
    # By the index of phases: there is a step of each erasure that ever was.
    rows = (
        _WITH_REASON.where(_STEPS.c.phase.in_([each.value for each in _FIRST]))
        .order_by(rank, *_IN_ORDER)
        .limit(1)
    )
    found = connection.execute(rows).first()
    return None if found is None else _step(found)


def steps_in(connection: Connection, phase: Phase) -> list[Step]:
    """The erasures that are in a phase, in the order in which `next_step` takes them."""
    rows = _WITH_REASON.where(_STEPS.c.phase == phase.value).order_by(*_IN_ORDER)
    return [_step(row) for row in connection.execute(rows)]


def advance_step(
    connection: Connection,
    step: Step,
    *,
    phase: Phase | None = None,
    done: Mapping[str, int] | None = None,
    **values: Any,
) -> None:
    """Store that a step is done, with its counts and other columns."""
    counts = Counter(step.counts)
    counts.update(done or {})
    values |= {"steps": step.steps + 1, "counts": msgspec.json.encode(dict(counts)).decode()}
    if phase is not None:
        values["phase"] = phase.value
    connection.execute(
        update(_STEPS).where(has_subject(_STEPS, "pseudonym", step.pseudonym)).values(**values)
    )


def rewritten_through(connection: Connection) -> int | None:
    """The revision through which every erasure that rewrites the change log has done so; None if none does.
    Beyond it, a record may have two names in the log."""
    rewriting = _STEPS.c.phase == Phase.HISTORY.value
    found: int | None = connection.scalar(select(func.min(_STEPS.c.position)).where(rewriting))
    return found


def record_of(connection: Connection, pseudonym: Subject) -> Erasure:
    """The erasure with a pseudonym."""
    [found] = ENTITY_ROWS["erasure"].about(connection, "pseudonym", pseudonym, 1)
    record: Erasure = found.entity
    return record


def insert_step(
    connection: Connection,
    pseudonym: Subject,
    subject: Subject | None,
    origin: Origin,
    *,
    new_owner: Subject | None = None,
    **values: Any,
) -> None:
    """Store that an erasure begins, with other columns."""
    row: dict[str, Any] = {
        "pseudonym_type": pseudonym.type.value,
        "pseudonym_id": pseudonym.id,
        "subject_id": None if subject is None else subject.id,
        "new_owner_type": None if new_owner is None else new_owner.type.value,
        "new_owner_id": None if new_owner is None else new_owner.id,
        "phase": Phase.RECORDS.value,
        "actor": origin.actor,
        "request_id": origin.request_id,
        "position": 0,
        "steps": 0,
        "counts": "{}",
        "kept": "[]",
    }
    connection.execute(insert(_STEPS), row | values)


def _step(row: Row[Any]) -> Step:
    pseudonym = subject_of(row, "pseudonym")
    return Step(
        pseudonym=pseudonym,
        subject=Subject(pseudonym.type, row.subject_id or pseudonym.id),
        new_owner=None if row.new_owner_id is None else subject_of(row, "new_owner"),
        phase=Phase(row.phase),
        position=row.position,
        steps=row.steps,
        origin=Origin(row.actor, row.reason, row.request_id),
        counts=msgspec.json.decode(row.counts, type=dict[str, int]),
    )
