"""Reads `manifest.csv`: which files an export has, and whether each is whole or holds changes only."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

from authz.importers.archive import Archive
from authz.importers.report import RowFault, quoted
from authz.importers.tables import malformed_line, misspelt, read_csv

MANIFEST = "manifest.csv"
ACADEMIC_SESSIONS = "academicSessions.csv"
CLASSES = "classes.csv"
ENROLLMENTS = "enrollments.csv"
USERS = "users.csv"
_ROLES = "roles.csv"
_READ = (ACADEMIC_SESSIONS, CLASSES, ENROLLMENTS, USERS)
_VERSIONS = ("1.1", "1.2")


class Mode(StrEnum):
    """What a file is. UNSTATED: there is no manifest, or it does not name the file."""

    ABSENT = "absent"
    BULK = "bulk"
    DELTA = "delta"
    UNSTATED = ""


class Manifest(msgspec.Struct, frozen=True):
    """The mode of each file that is read, and what there is to note about the files of the export."""

    modes: Mapping[str, Mode]
    notes: list[RowFault]


def read_manifest(archive: Archive) -> Manifest:
    """Read the manifest of an export, if it has one. A file that it does not need is ABSENT.

    Raises `InvalidArgumentError` for another version or mode, and for a file that is missing.
    """
    notes: list[RowFault] = []
    stated: dict[str, Mode] = {}
    if archive.has(MANIFEST):
        stated = _stated(archive)
    else:
        text = "the export has none: rows without a status are active, and no record is removed for absence"
        notes.append(RowFault(MANIFEST, 0, text))
        archive.require(CLASSES)
        archive.require(ENROLLMENTS)
    modes = {}
    for file in _READ:
        mode = stated.get(file, Mode.UNSTATED)
        if mode is Mode.ABSENT and archive.has(file):
            notes.append(RowFault(file, 0, f"is not read: {MANIFEST} says that it is absent"))
        elif mode in {Mode.BULK, Mode.DELTA}:
            archive.require(file, why=f", which {MANIFEST} says is `{mode}`")
        elif mode is Mode.UNSTATED and archive.has(file) and archive.has(MANIFEST):
            text = f"{MANIFEST} does not state its mode: no record is removed for absence"
            notes.append(RowFault(file, 0, text))
        modes[file] = mode if archive.has(file) else Mode.ABSENT
    if archive.has(_ROLES):
        notes.append(RowFault(_ROLES, 0, "is not read: a role in an organisation is no role in a course"))
    return Manifest(modes, notes)


def _stated(archive: Archive) -> dict[str, Mode]:
    stated: dict[str, Mode] = {}
    names = {f"file.{file.removesuffix('.csv')}": file for file in _READ}
    with archive.open(MANIFEST) as stream:
        for line, record in read_csv(stream, MANIFEST, ("propertyName", "value")):
            name, value = record.get("propertyName", ""), record.get("value", "")
            if name == "oneroster.version" and not value.startswith(_VERSIONS):
                problem = f"oneroster.version is {quoted(value)}; only 1.1 and 1.2 can be read"
                raise malformed_line(MANIFEST, line, problem)
            # Without its mode, a file would end no access by absence.
            meant = misspelt(name, names)
            if meant:
                raise malformed_line(
                    MANIFEST, line, f"has a property {quoted(name)}; did you mean `{meant}`?"
                )
            if name not in names:
                continue
            if value not in {Mode.ABSENT, Mode.BULK, Mode.DELTA}:
                problem = f"{name} is {quoted(value)}; use `absent`, `bulk` or `delta`"
                raise malformed_line(MANIFEST, line, problem)
            if stated.setdefault(names[name], Mode(value)) is not Mode(value):
                raise malformed_line(MANIFEST, line, f"states {name} again, with another mode; remove one")
    return stated
