"""Streams the export of a subject, while a thread reads the database."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TypeVar

from authz.domain.exports import (
    ExportBegin,
    ExportedChange,
    ExportedEntry,
    ExportEnd,
    ExportItem,
    ExportSection,
    retention_of,
)
from authz.domain.ids import Subject
from authz.engine.consistency import ConsistencyGate
from authz.engine.streams import write_within
from authz.store.privacy.exports import Export
from authz.store.privacy.personal_data import PersonalData

MessageT = TypeVar("MessageT")


class Exporter:
    """Every export of a server, one at a time: each reads the whole change log."""

    def __init__(self, data: PersonalData, gate: ConsistencyGate, *, write_timeout_s: float) -> None:
        self._data = data
        self._gate = gate
        self._write_timeout_s = write_timeout_s
        self._exporting = asyncio.Lock()

    async def export(
        self,
        subject: Subject,
        render: Callable[[Iterable[ExportItem]], Iterator[MessageT]],
        write: Callable[[MessageT], Awaitable[None]],
    ) -> None:
        """Write the items, as messages that `render` makes of them. Raises as `write_within`, and
        `FailedPreconditionError` (SUBJECT_ERASED) once the erasure of the subject has begun."""
        loop = asyncio.get_running_loop()
        stopped = False

        async def send(message: MessageT) -> None:
            if stopped:
                raise asyncio.CancelledError
            await write_within(self._write_timeout_s, write(message), what="export")

        def produce() -> None:
            with self._data.export(subject) as export:
                for message in render(self._items(export, subject)):
                    self._data.require_not_erased_after(subject, export.state.revision)
                    asyncio.run_coroutine_threadsafe(send(message), loop).result()

        await self._exporting.acquire()
        try:
            await self._gate.run_in_turn(self._exporting, produce)
        finally:
            stopped = True  # the thread continues when this is cancelled

    def _items(self, export: Export, subject: Subject) -> Iterator[ExportItem]:
        counts = Counter(dict.fromkeys(ExportSection, 0))
        state = export.state
        token, retention = self._gate.token_of(state), retention_of(export.rules)
        yield ExportBegin(subject, token, state.committed_at, retention)
        for item in export.items():
            counts[_section_of(item)] += 1
            yield item
        yield ExportEnd(dict(counts))


def _section_of(item: ExportItem) -> ExportSection:
    if isinstance(item, ExportedEntry):
        return item.section
    return ExportSection.CHANGES if isinstance(item, ExportedChange) else ExportSection.RECORDS
