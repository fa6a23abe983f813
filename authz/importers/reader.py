"""What an import reads of the directory before it changes it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, TypeVar

from authz.domain.entities import Entity, Filter, Versioned

EntityT = TypeVar("EntityT", bound=Entity)


class DirectoryReader(Protocol):
    """Reads the directory. `authz.client.Client` implements it."""

    def read(self, wanted: Filter[EntityT]) -> Iterator[Versioned[EntityT]]:
        """The records that match a filter."""
