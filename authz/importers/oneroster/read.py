"""Reads a whole export."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from authz.importers.archive import Archive
from authz.importers.oneroster.enrollments import read_enrollments
from authz.importers.oneroster.fields import STATUS_COLUMNS
from authz.importers.oneroster.manifest import (
    ACADEMIC_SESSIONS,
    CLASSES,
    ENROLLMENTS,
    USERS,
    Mode,
    read_manifest,
)
from authz.importers.oneroster.references import Rows, read_classes, read_terms, read_users
from authz.importers.oneroster.rows import ReadOptions, Roster
from authz.importers.oneroster.sourced_ids import SourcedIds
from authz.importers.tables import read_csv

_REQUIRED = {
    ACADEMIC_SESSIONS: ("sourcedId", "endDate"),
    CLASSES: ("sourcedId",),
    ENROLLMENTS: ("sourcedId", "classSourcedId", "userSourcedId", "role"),
    USERS: ("sourcedId",),
}
_OPTIONAL = {
    CLASSES: ("termSourcedIds",),
    ENROLLMENTS: ("primary", "beginDate", "endDate"),
    USERS: ("enabledUser",),
}


def read_oneroster(path: Path, options: ReadOptions = ReadOptions()) -> Roster:  # noqa: B008  frozen
    """Read an export, a folder or a zip. Memory grows with the number of its classes, users and enrollments.

    Raises `InvalidArgumentError` for a malformed file; invalid rows become faults.
    """
    archive = Archive(path)
    manifest = read_manifest(archive)
    roster = Roster(options, manifest.modes, SourcedIds(), faults=[], notes=manifest.notes)
    with _rows(archive, ACADEMIC_SESSIONS, roster) as rows:
        terms = read_terms(rows, roster)
    with _rows(archive, CLASSES, roster) as rows:
        read_classes(rows, terms, roster)
    with _rows(archive, USERS, roster) as rows:
        read_users(rows, roster)
    with _rows(archive, ENROLLMENTS, roster) as rows:
        read_enrollments(rows, roster)
    return roster


@contextmanager
def _rows(archive: Archive, file: str, roster: Roster) -> Iterator[Rows]:
    """The rows of a file, none of one that is absent."""
    mode = roster.modes[file]
    if mode is Mode.ABSENT:
        yield ()
        return
    with archive.open(file) as stream:
        # A delta says of each record whether and when it changed.
        required = (*_REQUIRED[file], *(STATUS_COLUMNS if mode is Mode.DELTA else ()))
        yield read_csv(stream, file, required, (*STATUS_COLUMNS, *_OPTIONAL.get(file, ())))
