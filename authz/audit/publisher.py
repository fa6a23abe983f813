"""Signs checkpoints of the logs, and publishes them where the operator says."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import structlog

from authz.audit.destinations import Destination
from authz.audit.notes import Checkpoint, NoteSigner, NoteVerifier
from authz.domain.errors import AuthzError, FailedPreconditionError
from authz.domain.instants import US_PER_S, Instant
from authz.domain.proofs import AuditLog, Checkpoints, Proofs, SignedCheckpoint
from authz.telemetry.metrics import CHECKPOINTS

log = structlog.get_logger()

CLAIM_US = 60 * US_PER_S
"""How long the others wait for the server that signs, which may have been killed."""
_RETRY_US = 10 * US_PER_S
_PUBLISHED, _FAILED, _REFUSED = "published", "failed", "refused"
"""The outcomes that are counted."""


class CheckpointPublisher:
    """Of all servers of a database, one at a time signs its trees, once in each interval in which they
    have grown.

    Before it signs, it compares the trees with the newest checkpoint, and refuses to sign a history that does
    not continue that one. What a destination does not have is published there, until the next checkpoint is
    due, and then that one. The database has which ones have it, so that no other server publishes it twice.
    """

    def __init__(
        self,
        signer: NoteSigner,
        proofs: Proofs,
        checkpoints: Checkpoints,
        destinations: Sequence[Destination],
        *,
        clock: Callable[[], Instant],
        interval_us: int,
    ) -> None:
        self._signer = signer
        self._verifier = NoteVerifier(signer.public_key())
        self._proofs = proofs
        self._checkpoints = checkpoints
        self._destinations = destinations
        self._clock = clock
        self._interval_us = interval_us
        self._failing: frozenset[str] = frozenset()
        self._seen_note, self._seen_at = "", 0
        for outcome in (_PUBLISHED, _FAILED, _REFUSED):
            CHECKPOINTS.labels(outcome)

    def publish_due(self) -> None:
        """Sign and publish a checkpoint if one is due and no other server does. Blocks for as long as the
        slowest destination. Raises `AuthzError` while the database does not answer."""
        seen, now = self._checkpoints.newest(), self._clock()
        self._see(seen.note, now)
        # A time beyond the longest wait is of a clock that was ahead.
        is_early = now < seen.next_at <= now + max(self._interval_us, CLAIM_US)
        has_grown = (seen.size, seen.decisions_size) != self._sizes()
        if is_early or not (has_grown or self._missing(seen)):
            return
        claimed = msgspec.structs.replace(seen, next_at=now + CLAIM_US)
        if not self._checkpoints.replace(seen, claimed):
            return
        made = claimed if self._is_tried_again(seen, now) else self._made(claimed, now)
        if made is None or not self._checkpoints.replace(claimed, made):
            return
        self._see(made.note, now)
        done = self._published(made)
        delay_us = min(_RETRY_US, self._interval_us) if self._missing(done) else self._interval_us
        self._checkpoints.replace(made, msgspec.structs.replace(done, next_at=now + delay_us))

    def _missing(self, checkpoint: SignedCheckpoint) -> frozenset[str]:
        return checkpoint.missing_at(each.name for each in self._destinations)

    def _see(self, note: str, now: Instant) -> None:
        """Remember since when a note is the newest."""
        if note != self._seen_note:
            self._seen_note, self._seen_at = note, now

    def _is_tried_again(self, seen: SignedCheckpoint, now: Instant) -> bool:
        """Whether to publish the newest checkpoint again, as not every destination has it. A destination that
        fails must not make those that work take more checkpoints than one in each interval."""
        is_due = not 0 <= now - self._seen_at < self._interval_us
        return bool(self._missing(seen)) and not is_due and self._opened(seen) is not None

    def _made(self, claimed: SignedCheckpoint, now: Instant) -> SignedCheckpoint | None:
        """A checkpoint of the tree now; None if it must not be signed."""
        try:
            if not self._continues(claimed):
                CHECKPOINTS.labels(_REFUSED).inc()
                log.error(
                    "checkpoint refused: the logs are not those that were signed before;"
                    " compare them with `authz audit verify`",
                    signed_size=claimed.size,
                )
                return None
            sizes = self._sizes()
            roots = map(self._proofs.root, AuditLog, sizes)
            (size, root), (decisions_size, decisions_root) = zip(sizes, roots, strict=True)
        except FailedPreconditionError as error:
            CHECKPOINTS.labels(_REFUSED).inc()
            log.error("checkpoint refused", error=error.message)  # noqa: TRY400  says all
            return None
        checkpoint = Checkpoint(self._signer.name, size, root, decisions_size, decisions_root)
        note = self._signer.sign(checkpoint)
        have_it = claimed.published_to if note == claimed.note else frozenset()
        return SignedCheckpoint(note, size, decisions_size, have_it, now + CLAIM_US)

    def _sizes(self) -> tuple[int, int]:
        """Of the change log and of the decisions, in the order of `AuditLog`."""
        changes, decisions = map(self._proofs.size, AuditLog)
        return changes, decisions

    def _continues(self, before: SignedCheckpoint) -> bool:
        """Whether the trees continue the newest checkpoint, if this key has signed that."""
        if not before.note:
            return True
        signed = self._opened(before)
        if signed is None:
            log.warning("the newest checkpoint is not of this key; it is not compared with the logs")
            return True
        sizes, roots = (signed.size, signed.decisions_size), (signed.root, signed.decisions_root)
        if any(size > grown for size, grown in zip(sizes, self._sizes(), strict=True)):
            return False
        return roots == tuple(map(self._proofs.root, AuditLog, sizes))

    def _opened(self, signed: SignedCheckpoint) -> Checkpoint | None:
        """The checkpoint, if this key has signed it."""
        try:
            return self._verifier.open(signed.note, field="checkpoint")
        except AuthzError:
            return None

    def _published(self, made: SignedCheckpoint) -> SignedCheckpoint:
        """Publish a checkpoint to each destination that does not have it, and note those that do now."""
        missing, failing = self._missing(made), set()
        for destination in self._destinations:
            if destination.name not in missing:
                continue
            try:
                destination.publish(made.note)
            except OSError as error:
                failing.add(destination.name)
                if destination.name not in self._failing:
                    log.warning(
                        "checkpoint not published; tried again",
                        destination=destination.name,
                        error=str(error),
                    )
        for name in sorted(self._failing - failing):
            log.info("checkpoints are published again", destination=name)
        self._failing = frozenset(failing)
        CHECKPOINTS.labels(_FAILED if failing else _PUBLISHED).inc()
        return msgspec.structs.replace(made, published_to=made.published_to | (missing - failing))
