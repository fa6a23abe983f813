"""What the service requires of a store about one subject. Docstrings are obligations."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Protocol

from authz.domain.exports import ExportItem
from authz.domain.ids import Subject
from authz.domain.tokens import ConsistencyToken


class Export(Protocol):
    """Everything that is held about one subject at one state, in bounded memory."""

    state: ConsistencyToken
    """The state that is read."""

    def items(self) -> Iterator[ExportItem]:
        """Records in an order in which they may be written, then changes in the order of the log, then
        everything else."""


class PersonalData(Protocol):
    """What is held about subjects. Every call blocks and is safe to make from many threads."""

    def export(self, subject: Subject) -> AbstractContextManager[Export]:
        """Open an export, which lasts as long as the block."""
