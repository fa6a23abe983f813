"""Streams the export of a subject, while a thread reads the database."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TypeVar

from authz.domain.errors import OverloadedError
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
from authz.domain.personal_data import Export, PersonalData
from authz.engine.consistency import ConsistencyGate
from authz.engine.watch import completes_within

MessageT = TypeVar("MessageT")

_RETRY_AFTER_S = 1.0


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
        """Write the items, as messages that `render` makes of them.

        Raises `OverloadedError` when a write takes longer than the timeout: the database keeps what a reader
        still sees, so no transaction stays open for who does not read.
        """
        loop = asyncio.get_running_loop()

        def produce() -> None:
            with self._data.export(subject) as export:
                for message in render(self._items(export, subject)):
                    asyncio.run_coroutine_threadsafe(self._send(write(message)), loop).result()

        async with self._exporting:
            await self._gate.run(produce)

    def _items(self, export: Export, subject: Subject) -> Iterator[ExportItem]:
        counts = Counter(dict.fromkeys(ExportSection, 0))
        state = export.state
        token, retention = self._gate.token_of(state), retention_of(export.rules)
        yield ExportBegin(subject, token, state.committed_at, retention)
        for item in export.items():
            counts[_section_of(item)] += 1
            yield item
        yield ExportEnd(dict(counts))

    async def _send(self, writing: Awaitable[None]) -> None:
        if not await completes_within(self._write_timeout_s, writing):
            raise OverloadedError(
                f"the client has not read the export for {self._write_timeout_s:g} s; read it as it comes",
                retry_after_s=_RETRY_AFTER_S,
            )


def _section_of(item: ExportItem) -> ExportSection:
    if isinstance(item, ExportedEntry):
        return item.section
    return ExportSection.CHANGES if isinstance(item, ExportedChange) else ExportSection.RECORDS
