"""Counts the rows of a preview, keeps the largest, and joins subjects for whom the same changes."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import count

from authz.domain.ids import Scope, Subject
from authz.domain.impact import AccessChange, AccessKind, Impact, KindTotal

_MAX_SUBJECTS = 200
"""In one row as it is sent: bounds the size of a message."""


class Tally:
    """Of all rows so far. Bounded, however many there are."""

    def __init__(self, max_largest: int) -> None:
        self._max_largest = max_largest
        self._kinds: dict[AccessKind, tuple[int, int]] = {}
        self._largest: list[tuple[int, int, Impact]] = []
        self._numbers = count()
        self.rows = 0
        self.scopes = 0

    def add(self, impact: Impact) -> None:
        """Count rows."""
        more, size, kinds = len(impact.subjects), 0, self._kinds
        self.rows += more
        for change in impact.changes:
            kind, count = change.kind, change.count
            size += count
            subjects, resources = kinds.get(kind, (0, 0))
            kinds[kind] = (subjects + more, resources + more * count)
        for subject in impact.subjects:
            if len(self._largest) >= self._max_largest and size <= self._largest[0][0]:
                return
            # Of equal ones the first found stays.
            each = (size, -next(self._numbers), Impact(impact.scope, (subject,), impact.changes))
            heapq.heappush(self._largest, each)
            if len(self._largest) > self._max_largest:
                heapq.heappop(self._largest)

    @property
    def kinds(self) -> tuple[KindTotal, ...]:
        """What changes, for the most subjects first."""
        found = (KindTotal(kind, *counts) for kind, counts in self._kinds.items())
        return tuple(sorted(found, key=lambda total: (-total.subjects, -total.count, total.kind)))

    @property
    def largest(self) -> tuple[Impact, ...]:
        """The rows with the most changes, one a subject, the largest first."""
        return tuple(impact for _, _, impact in sorted(self._largest, reverse=True))


class RowBatches:
    """The rows of one scope: subjects for whom the same changes are sent together."""

    def __init__(self, scope: Scope, tally: Tally) -> None:
        self._scope = scope
        self._tally = tally
        self._has_rows = False
        self._pending: dict[int, tuple[tuple[AccessChange, ...], list[Subject]]] = {}

    def add(self, subject: Subject, changes: tuple[AccessChange, ...]) -> Impact | None:
        """A row that is full, if any."""
        # By identity: to compare changes by their value takes longer than to find them.
        pending = self._pending.get(id(changes))
        if pending is None:
            pending = self._pending[id(changes)] = (changes, [])
        subjects = pending[1]
        subjects.append(subject)
        if len(subjects) >= _MAX_SUBJECTS:
            return self._row(*self._pending.pop(id(changes)))
        return None

    def rest(self) -> Iterator[Impact]:
        """The rows that are not full, at the end of a scope."""
        if self._pending or self._has_rows:
            self._tally.scopes += 1
        for changes, subjects in self._pending.values():
            yield self._row(changes, subjects)

    def _row(self, changes: tuple[AccessChange, ...], subjects: list[Subject]) -> Impact:
        row = Impact(self._scope, tuple(subjects), changes)
        self._has_rows = True
        self._tally.add(row)
        return row
