"""Personal data in the database: export, rename, holds and erasure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, Row, delete, func, select

from authz.domain.entities import Erasure, ErasureFilter, ErasureStatus, Hold, Restriction, Versioned
from authz.domain.erasures import (
    ErasureCertificate,
    ErasureRequest,
    Pseudonyms,
    RenameRequest,
    ReplicaReport,
    RestrictedSubject,
    subject_mac,
)
from authz.domain.errors import precondition_failed
from authz.domain.ids import Subject
from authz.domain.instants import Instant, format_instant
from authz.domain.origin import Origin
from authz.domain.ports import Listing, Page
from authz.domain.recipients import Watcher, WatcherReport
from authz.domain.tokens import ConsistencyToken
from authz.store import tables
from authz.store.bulk import upsert_rows
from authz.store.database.connections import expecting_long_statements
from authz.store.database.engine import read_transaction, write_transaction
from authz.store.directory import SqlDirectory
from authz.store.log.reader import read_head, read_token_key
from authz.store.privacy.erase_files import left_to_operator, rewrite_file, truncate_log
from authz.store.privacy.erase_history import erase_rest, erase_revisions, find_revisions
from authz.store.privacy.erase_records import begin_history, erase_records
from authz.store.privacy.erased import (
    erased_since,
    pseudonyms_among,
    pseudonyms_of,
    require_not_erased,
    require_not_erased_after,
)
from authz.store.privacy.erasure_steps import (
    Phase,
    Step,
    advance_step,
    begin,
    next_step,
    record_of,
    steps_in,
    unreleased,
)
from authz.store.privacy.exports import Export
from authz.store.privacy.holds import hold_on, read_holds, read_restrictions, release_kept, restriction_of
from authz.store.privacy.recipients import askers, watchers
from authz.store.privacy.renames import MAX_RECORDS, other_ids, rename
from authz.store.privacy.traces import PreparedStep, Traces, erase_traces, find_traces, kept_mentions
from authz.store.write import Transaction

_TOGETHER = 20
"""Erasures that rewrite the history together: each step looks for all of their subjects, and writes wait."""
_STEPS, _REPLICAS = tables.erasure_steps, tables.replicas


@dataclass(frozen=True, eq=False)
class PersonalData:
    """Personal data in the store. Every call blocks and is thread-safe."""

    engine: Engine
    directory: SqlDirectory
    clock: Callable[[], Instant]
    grace_us: int
    _waits_since: dict[Subject, Instant] = field(default_factory=dict, init=False)
    """When this process first found each erasure waiting that it found waiting last, by pseudonym."""

    @contextmanager
    def export(self, subject: Subject) -> Iterator[Export]:
        """Open an export for the duration of the block."""
        with read_transaction(self.engine) as connection, expecting_long_statements(connection):
            found = Export(connection, subject)
            self.directory.add_token_key(connection, found.state.database_id)
            yield found

    def require_not_erased_after(self, subject: Subject, revision: int) -> None:
        """Raise `FailedPreconditionError` (SUBJECT_ERASED) if the erasure of a subject has begun or gone on
        after a revision."""
        with read_transaction(self.engine) as connection:
            require_not_erased_after(connection, subject, revision)

    def begin_erasure(self, request: ErasureRequest) -> Subject:
        """Refuse writes that name the subject from now on, and return its pseudonym. `advance_erasure` does
        the rest, also after a crash.

        Raises `FailedPreconditionError` for a subject that is held (SUBJECT_HELD), was erased
        (SUBJECT_ERASED), is getting the resources of somebody who is being erased, is the last administrator
        of the platform (LAST_ADMINISTRATOR), or owns resources for which the request names no owner;
        `InvalidArgumentError` for a request that contradicts itself. If it raises, nothing has changed.
        """
        with self.directory.transaction() as transaction:
            return begin(transaction, request)

    def erasure_progress(self) -> object | None:
        """The progress of the first incomplete erasure, a different value after each step. None if nothing is
        left to erase. Takes no lock."""
        with read_transaction(self.engine) as connection:
            return next_step(connection)

    def prepare_erasure(self) -> PreparedStep:
        """Do of the next step of that erasure what needs no lock of writes, because it may read whole tables:
        search for what names the subject, analyze tables."""
        with read_transaction(self.engine) as connection, expecting_long_statements(connection):
            prepared = PreparedStep(step=next_step(connection), head=read_head(connection))
            step, at_once = prepared.step, self.directory.contents_at_once
            traces = None if step is None else find_traces(connection, step, prepared.head, at_once)
        if step is not None and step.phase is Phase.FILES and self.engine.dialect.name == "postgresql":
            return msgspec.structs.replace(prepared, covered=self._rewrite_file())
        return msgspec.structs.replace(prepared, traces=traces)

    def advance_erasure(self, prepared: PreparedStep | None = None) -> ConsistencyToken:
        """Do one bounded step of that erasure, which was prepared, or is first; return the state after it. If
        several processes try, one does the step. Raises `ConflictError` while a reader blocks the truncation
        of the database's log."""
        prepared = prepared or self.prepare_erasure()
        step, traces = prepared.step, prepared.traces
        if step is None:
            return prepared.head
        match step.phase:
            case Phase.RECORDS:
                return self._if_still(step, lambda each, same: erase_records(each, same, traces))
            case Phase.WAIT:
                return self._if_still(step, self._begin_histories)
            case Phase.HISTORY:
                return self._if_still(step, lambda each, same: self._erase_history(each, same, traces))
            case Phase.FILES:
                return self._leave_files(prepared.covered or self._rewrite_file())
            case Phase.LOG | Phase.DONE:
                truncate_log(self.engine)
                return self._if_still(step, self._complete)

    def _if_still(self, step: Step, act: Callable[[Transaction, Step], None]) -> ConsistencyToken:
        """Act, unless another process has taken this step meanwhile: the next one may be of somebody else."""
        with self.directory.transaction() as transaction:
            if next_step(transaction.connection) == step:
                act(transaction, step)
            return transaction.head

    def _begin_histories(self, transaction: Transaction, step: Step) -> None:
        """Begin the rewrite of the history for this step and the next ones whose grace period is over."""
        waiting, now = steps_in(transaction.connection, step.phase), self.clock()
        since = {each.pseudonym: self._waits_since.get(each.pseudonym, now) for each in waiting}
        self._waits_since.clear()
        self._waits_since.update(since)
        for each in waiting[:_TOGETHER]:
            waited_us = now - since[each.pseudonym]
            begin_history(transaction, each, grace_us=self.grace_us, waited_us=waited_us)

    def _erase_history(self, transaction: Transaction, step: Step, traces: Traces | None) -> None:
        connection, subject, pseudonym = transaction.connection, step.subject, step.pseudonym
        # Erasures that began together search each part of the log once.
        together = [each for each in steps_in(connection, step.phase) if each.position == step.position]
        revisions, through = find_revisions(connection, [each.subject for each in together], step.position)
        counts = [
            erase_revisions(connection, each.subject, each.pseudonym, revisions, each.origin.reason)
            for each in together
        ]
        if any(counts) or through is not None:
            for each, rewritten in zip(together, counts, strict=True):
                advance_step(connection, each, done=rewritten, position=through or revisions[-1])
            return
        if traces is None:
            return  # a purge has ended the log earlier; what else there is, is searched first
        if done := erase_traces(transaction, step, traces):
            advance_step(connection, step, done=done)
            return
        done = erase_rest(connection, subject, pseudonym)
        kept = kept_mentions(connection, subject, traces)
        self._set_status(transaction, step, ErasureStatus.ERASED)
        advance_step(
            connection,
            step,
            phase=Phase.FILES,
            done=done,
            subject_id=None,
            new_owner_type=None,
            new_owner_id=None,
            kept=msgspec.json.encode(kept).decode(),
            erased_at=transaction.head.revision,
        )

    def _rewrite_file(self) -> Sequence[Step]:
        """Rewrite the file of the database, and return the steps that this is for."""
        with read_transaction(self.engine) as connection:
            covered = steps_in(connection, Phase.FILES)
        rewrite_file(self.engine)
        return covered

    def _leave_files(self, covered: Sequence[Step]) -> ConsistencyToken:
        with self.directory.transaction() as transaction:
            for step in steps_in(transaction.connection, Phase.FILES):
                if step in covered:
                    advance_step(transaction.connection, step, phase=Phase.LOG)
            return transaction.head

    def _complete(self, transaction: Transaction, step: Step) -> None:
        self._set_status(transaction, step, ErasureStatus.COMPLETE)
        advance_step(transaction.connection, step, phase=Phase.DONE, finished_at=transaction.now)

    def _set_status(self, transaction: Transaction, step: Step, status: ErasureStatus) -> None:
        record = msgspec.structs.replace(record_of(transaction.connection, step.pseudonym), status=status)
        with transaction.revision(step.origin) as batch:
            batch.rewrite([record])

    def certificate(self, pseudonym: Subject) -> ErasureCertificate:
        """The certificate of an erasure so far, with the machines that have confirmed it."""
        with read_transaction(self.engine) as connection:
            same = tables.has_subject(_STEPS, "pseudonym", pseudonym)
            row = connection.execute(select(_STEPS).where(same)).one()
            replicas = connection.execute(select(_REPLICAS).order_by(_REPLICAS.c.name)).all()
            return ErasureCertificate(
                erasure=record_of(connection, pseudonym),
                actor=row.actor,
                finished_at=row.finished_at,
                removed=msgspec.json.decode(row.counts, type=dict[str, int]),
                kept=tuple(msgspec.json.decode(row.kept, type=list[str])),
                left_to_operator=(*_other_ids(connection, pseudonym), *left_to_operator(connection)),
                replicas=tuple(_report(each, row.erased_at) for each in replicas),
                askers=tuple(askers(connection, pseudonym)),
                watchers=tuple(_report_of_watcher(each, row.erased_at) for each in watchers(connection)),
            )

    def erasures(self, subject: Subject | None, page: Page) -> Listing[Erasure]:
        """A page of all erasures, or of those of a subject, ordered by pseudonym. A pseudonym has its own."""
        with read_transaction(self.engine) as connection:
            wanted = ErasureFilter()
            if subject is not None and pseudonyms_among(connection, [subject]):
                wanted = ErasureFilter(pseudonym=subject)
            elif subject is not None:
                wanted = ErasureFilter(mac=subject_mac(read_token_key(connection), subject))
        return self.directory.read(wanted, page)

    def release(self, subject: Subject, origin: Origin) -> ConsistencyToken:
        """Allow writes to name an erased id again. Raises `FailedPreconditionError` if it was not erased, or
        not completely, on each machine."""
        with self.directory.transaction() as transaction:
            connection = transaction.connection
            found = unreleased(connection, subject_mac(read_token_key(connection), subject))
            if not found or any(each.status is ErasureStatus.ERASING for each in found):
                raise precondition_failed(
                    f"{subject} {'is being' if found else 'was not'} erased, so there is nothing to release;"
                    f" see `authz privacy erasures --subject {subject}`",
                    subject=str(subject),
                )
            _require_confirmed(connection, subject, found)
            with transaction.revision(origin) as batch:
                batch.rewrite([msgspec.structs.replace(each, released=True) for each in found])
            return transaction.head

    def rename(self, request: RenameRequest) -> tuple[ConsistencyToken, dict[str, int]]:
        """As `renames.rename`, in a transaction of its own."""
        with self.directory.transaction() as transaction:
            return rename(transaction, request, MAX_RECORDS)

    def hold(self, subject: Subject, origin: Origin) -> ConsistencyToken:
        """Block the erasure of a subject. A new hold replaces an earlier one.

        Raises `FailedPreconditionError` (SUBJECT_ERASED) if its erasure has begun.
        """
        with self.directory.transaction() as transaction:
            require_not_erased(transaction.connection, subject)
            with transaction.revision(origin) as batch:
                batch.rewrite([Hold(subject, origin.reason, origin.actor, transaction.now)])
            return transaction.head

    def release_hold(self, subject: Subject, origin: Origin) -> ConsistencyToken:
        """End the hold on a subject. Raises `FailedPreconditionError` if it is not held."""
        with self.directory.transaction() as transaction:
            hold = hold_on(transaction.connection, subject)
            if hold is None:
                raise precondition_failed(
                    f"{subject} is not held; list who is with `authz privacy holds`", subject=str(subject)
                )
            release_kept(transaction.connection, subject)
            with transaction.revision(origin) as batch:
                batch.delete_found([hold])
            return transaction.head

    def holds(self) -> tuple[Versioned[Hold], ...]:
        """All holds, ordered by subject."""
        with read_transaction(self.engine) as connection:
            return tuple(read_holds(connection))

    def restrict(self, subject: Subject, origin: Origin) -> ConsistencyToken:
        """Restrict the processing of a subject's data: from this state on, no record gives it access.

        Raises `FailedPreconditionError` if it is restricted already, if its erasure has begun
        (SUBJECT_ERASED), or if it is the last administrator of the platform (LAST_ADMINISTRATOR).
        """
        with self.directory.transaction() as transaction:
            require_not_erased(transaction.connection, subject)
            found = restriction_of(transaction.connection, subject)
            if found is not None:
                since = format_instant(found.restriction.entity.since)
                raise precondition_failed(
                    f"{subject} is restricted already, since {since}: {found.reason}", subject=str(subject)
                )
            transaction.administrators.require_kept_without(subject)
            with transaction.revision(origin) as batch:
                batch.rewrite([Restriction(subject, transaction.now)])
            return transaction.head

    def lift_restriction(self, subject: Subject, origin: Origin) -> ConsistencyToken:
        """End a restriction. Raises `FailedPreconditionError` if the subject is not restricted."""
        with self.directory.transaction() as transaction:
            found = restriction_of(transaction.connection, subject)
            if found is None:
                raise precondition_failed(
                    f"{subject} is not restricted; list who is with `authz privacy restrictions`",
                    subject=str(subject),
                )
            release_kept(transaction.connection, subject)
            with transaction.revision(origin) as batch:
                batch.delete_found([found.restriction])
            return transaction.head

    def restrictions(self) -> tuple[RestrictedSubject, ...]:
        """All restrictions, ordered by subject."""
        with read_transaction(self.engine) as connection:
            return tuple(read_restrictions(connection))

    def erased_since_report(self, name: str) -> Pseudonyms:
        """The pseudonyms of those who were erased since a machine last reported, or of all if it never did,
        and whose id was not released since."""
        with read_transaction(self.engine) as connection:
            row = connection.execute(select(_REPLICAS.c.cleared).where(_REPLICAS.c.name == name)).first()
            return erased_since(connection, 0 if row is None else row.cleared)

    def erased(self) -> Pseudonyms:
        """The pseudonyms of all whose erasure is complete and whose id was not released since."""
        with read_transaction(self.engine) as connection:
            return erased_since(connection, 0)

    def pseudonyms_of(self, names: Sequence[str]) -> dict[str, str]:
        """The pseudonyms of those among some names (`user:<id>`) who were erased, and not released since."""
        with read_transaction(self.engine) as connection:
            return pseudonyms_of(connection, names)

    def report_replica(self, name: str, cleared: int) -> None:
        """Record that a machine is free, in the files of its replica and of its decision log, of everything
        that was erased up to a revision."""
        with write_transaction(self.engine) as connection:
            upsert_rows(connection, _REPLICAS, [(name, cleared, self.clock())])

    def forget_replica(self, name: str) -> None:
        """Forget a decommissioned machine. Raises `FailedPreconditionError` for an unknown name."""
        with write_transaction(self.engine) as connection:
            if not connection.execute(delete(_REPLICAS).where(_REPLICAS.c.name == name)).rowcount:
                raise precondition_failed(
                    f"there is no replica `{name}`; `authz privacy erasures` shows their names", name=name
                )


def _require_confirmed(connection: Connection, subject: Subject, found: Sequence[Erasure]) -> None:
    # A machine that clears its files after the release would replace the new holder of the id, too.
    names = [each.pseudonym.id for each in found]
    erased_at = select(func.max(_STEPS.c.erased_at)).where(_STEPS.c.pseudonym_id.in_(names)).scalar_subquery()
    late = select(_REPLICAS.c.name).where(_REPLICAS.c.cleared < erased_at).order_by(_REPLICAS.c.name)
    if name := connection.scalar(late.limit(1)):
        raise precondition_failed(
            f"machine `{name}` has not confirmed the erasure of {subject}: wait some seconds if it runs, else"
            f" start it, or delete its files and run `authz privacy forget-replica {name}`",
            subject=str(subject),
            name=name,
        )


def _other_ids(connection: Connection, pseudonym: Subject) -> Iterator[str]:
    for other, renamed_at in other_ids(connection, pseudonym).items():
        since = format_instant(renamed_at)
        yield (
            f"{other} is another id of the subject, by a rename of {since}: erase it, too, unless it is"
            " somebody else's now"
        )


def _report(row: Row[Any], erased_at: int | None) -> ReplicaReport:
    return ReplicaReport(row.name, erased_at is not None and row.cleared >= erased_at, row.seen_at)


def _report_of_watcher(watcher: Watcher, erased_at: int | None) -> WatcherReport:
    was_sent, has_acknowledged = (
        erased_at is not None and revision >= erased_at for revision in (watcher.sent, watcher.acknowledged)
    )
    return WatcherReport(watcher.caller, was_sent or has_acknowledged, has_acknowledged, watcher.seen_at)
