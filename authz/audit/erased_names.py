"""Replaces erased subjects in entries of the decision log before they are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from authz.domain.decision_log import DecisionEntry, names_in, with_pseudonyms
from authz.domain.erasures import Pseudonyms
from authz.domain.errors import AuthzError


class ErasureIndex(Protocol):
    """The erased subjects in the database. Every call blocks, and raises `UnavailableError` without it."""

    def erased(self) -> Pseudonyms:
        """Of all whose erasure is complete and whose id was not released since."""

    def pseudonyms_of(self, names: Sequence[str]) -> Mapping[str, str]:
        """Of those among some names (`user:<id>`) who were erased, and not released since."""


class ErasedNames:
    """Replaces those who were erased, also in entries that waited while a file could not be written.

    `generation` is that of the replica's file, which changes after each erasure, in all processes of the
    machine at once. So nothing is written that names a subject after one of them has cleared the files.
    """

    def __init__(self, index: ErasureIndex, generation: Callable[[], int]) -> None:
        self._index = index
        self._generation = generation
        self._seen: int | None = None
        self._pseudonyms = Pseudonyms(b"", {})

    def replaced(self, entries: Sequence[DecisionEntry]) -> Sequence[DecisionEntry]:
        """The entries, with pseudonyms. One thread at a time.

        Raises `UnavailableError` if the database does not say who was erased since the last time. Before the
        first time, nobody is replaced, so that a server that starts without the database keeps its log.
        """
        generation = self._generation()
        if generation != self._seen:
            try:
                self._pseudonyms = self._index.erased()
            except AuthzError:
                if self._seen is None:
                    return entries
                raise
            self._seen = generation
        erased = self._among(entries)
        return [with_pseudonyms(each, erased) for each in entries] if erased else entries

    def _among(self, entries: Sequence[DecisionEntry]) -> Mapping[str, str]:
        if not self._pseudonyms:
            return {}
        names = {name for each in entries for name in names_in(each)}
        found = {name: str(each) for name in names if (each := self._pseudonyms.of(name))}
        if found:
            # Some may have been released since. Without the database, the pseudonym is the safe answer.
            with suppress(AuthzError):
                return self._index.pseudonyms_of([*found])
        return found
