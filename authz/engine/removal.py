"""Removes in the background what large deletions have left, in turn with the writes."""

from __future__ import annotations

import asyncio
import random
import time

import structlog

from authz.domain.errors import AuthzError
from authz.domain.ports import Directory, RemovalProgress
from authz.engine.consistency import ConsistencyGate
from authz.engine.group_commit import GroupCommitter

log = structlog.get_logger()

_INTERVAL_S = 1.0
"""How often a process looks whether something is left, and whether another process removes it."""


class Remover:
    """Removes the contents of deleted records, a bounded part in each revision, until nothing is left.

    Every serving process has one. It goes on only with a removal that nobody has advanced since it looked
    last: so one process of all removes, and when that one stops, another continues. The pauses between the
    parts leave the write lock to other processes for half of the time.
    """

    def __init__(self, directory: Directory, gate: ConsistencyGate, committer: GroupCommitter) -> None:
        self._directory = directory
        self._gate = gate
        self._committer = committer
        self._seen: RemovalProgress | None = None

    async def run(self) -> None:
        """Remove until cancelled, through every failure."""
        while True:
            try:
                progress = await self._gate.run(self._directory.removal_progress)
                if progress is not None and progress == self._seen:
                    await self._remove_part()
                    continue
                self._seen = progress
            except AuthzError as error:
                log.warning("removal interrupted", error=error.message)
            except Exception:
                # Nobody else would remove it.
                log.exception("removal failed")
            # Processes that look at the same time would take turns with each other.
            await asyncio.sleep(_INTERVAL_S * random.uniform(0.5, 1.5))  # noqa: S311  no secret

    async def _remove_part(self) -> None:
        """Remove one part, wait until this machine's replica has followed, and pause for as long as it took.

        So a revocation never waits for more than one part, neither at the database nor at the replica.
        """
        started_s = time.monotonic()
        state = await self._committer.run_batch(self._directory.remove_contents)
        self._seen = await self._gate.run(self._directory.removal_progress)
        elapsed_s = time.monotonic() - started_s
        while not await self._gate.wait_beyond(state.revision - 1, _INTERVAL_S):
            pass
        await asyncio.sleep(elapsed_s)
