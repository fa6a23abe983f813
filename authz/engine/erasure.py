"""Begins an erasure, continues it while the caller waits, and reports it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import structlog

from authz.domain.entities import Erasure
from authz.domain.erasures import ErasureCertificate, ErasureRequest, Pseudonyms
from authz.domain.errors import AuthzError, ConflictError, UnavailableError
from authz.domain.ids import Subject
from authz.domain.ports import Listing, Page, View
from authz.engine.background_steps import BackgroundSteps
from authz.engine.consistency import ConsistencyGate
from authz.engine.group_commit import GroupCommitter, RequirePermitted
from authz.engine.polling import poll
from authz.store.privacy.personal_data import PersonalData

log = structlog.get_logger()

_WAIT_S = 4.0
"""Maximum wait of a caller; the erasure continues without it."""
_REPORT_INTERVAL_S = 0.5
_REPORT_AGAIN_S = 600.0
_INITIAL_BACKOFF_S = 0.5
_MAX_BACKOFF_S = 10.0
"""Between two attempts to clear the files, each of which reads them from the beginning."""
_NOT_CLEARED = (
    "erased subjects are still in a file of decisions; let this server write to the file and its folder"
)


@dataclass(frozen=True, eq=False)
class Eraser:
    """Every erasure of a server."""

    data: PersonalData
    gate: ConsistencyGate
    committer: GroupCommitter
    steps: BackgroundSteps

    async def erase(
        self,
        request: ErasureRequest,
        deadline: float | None,
        require_permitted: RequirePermitted | None = None,
    ) -> ErasureCertificate:
        """Begin an erasure; return what is done of it when it is complete, or when the caller's time is up.

        Raises as `PersonalData.begin_erasure`, and what `require_permitted` does before it begins.
        """
        begin = partial(self.data.begin_erasure, request)
        pseudonym = await self.committer.run_batch(begin, require_permitted)
        end_at = time.monotonic() + _WAIT_S
        if deadline is not None:
            end_at = min(end_at, (time.monotonic() + deadline) / 2)
        try:
            async with asyncio.timeout(end_at - time.monotonic()):
                pause_s = await self.steps.advance()
                while pause_s is not None:
                    await asyncio.sleep(pause_s)
                    pause_s = await self.steps.advance()
        except (ConflictError, TimeoutError):
            pass  # goes on in the background
        except AuthzError as error:
            log.warning("erasure interrupted", error=error.message)
        return await self.gate.run(self.data.certificate, pseudonym)

    async def certificates(
        self, subject: Subject | None, page: Page
    ) -> tuple[list[ErasureCertificate], Listing[Erasure]]:
        """A page of certificates, and the listing that it is of."""
        listing = await self.gate.read(self.data.erasures, subject, page)
        found: list[Erasure] = [each.entity for each in listing.items]
        certificates = [await self.gate.run(self.data.certificate, each.pseudonym) for each in found]
        return certificates, listing


class NamingFiles(Protocol):
    """Files of this machine that name subjects, such as those of its decision log."""

    def erase(self, pseudonyms: Pseudonyms) -> int:
        """Replace the erased subjects; return the number of lines that named them. Raises `OSError`."""


class ReplicaReporter:
    """Clears what this machine's files have of erased subjects, and reports to the database up to where.

    The follower clears the replica, and this reporter the other files, before it reports. Without a name, it
    reports nothing. Several processes of the machine may do so at the same time.
    """

    def __init__(
        self,
        data: PersonalData,
        gate: ConsistencyGate,
        view: View,
        *,
        name: str,
        files: Sequence[NamingFiles],
    ) -> None:
        self._data = data
        self._gate = gate
        self._view = view
        self._name = name
        self._files = files
        self._reported: int | None = None
        self._last_error = ""
        """The last failure to clear a file, which is logged once."""
        self._backoff_s = _INITIAL_BACKOFF_S
        self._reported_at_s = 0.0

    async def run(self) -> None:
        """Report until cancelled: each change, and at intervals that the machine is still there."""
        await poll(self._report_if_due, interval_s=_REPORT_INTERVAL_S, work="confirmation of erasures")

    async def _report_if_due(self) -> None:
        try:
            cleared = self._view.cleared()
        except UnavailableError:
            return  # nothing to confirm without a replica, and the server has logged that there is none
        is_due = time.monotonic() - self._reported_at_s > _REPORT_AGAIN_S
        if cleared == self._reported and not is_due:
            return
        if cleared != self._reported:
            try:
                await self._gate.compute(self._clear_files)
            except OSError as error:
                if str(error) != self._last_error:
                    log.warning(_NOT_CLEARED, error=str(error))
                self._last_error = str(error)
                await asyncio.sleep(self._backoff_s)
                self._backoff_s = min(2 * self._backoff_s, _MAX_BACKOFF_S)
                return
            self._last_error, self._backoff_s = "", _INITIAL_BACKOFF_S
        if self._name:
            await self._gate.run(self._data.report_replica, self._name, cleared)
        self._reported, self._reported_at_s = cleared, time.monotonic()

    def _clear_files(self) -> None:
        pseudonyms = self._data.erased_since_report(self._name) if self._files else None
        if not pseudonyms:
            return
        for each in self._files:
            lines = each.erase(pseudonyms)
            log.info("erased subjects replaced in a file of decisions", lines=lines)
