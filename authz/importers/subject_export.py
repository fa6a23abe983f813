"""Reads an export of a subject: its records, and whether it is restricted."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from authz.domain.entities import (
    AccessToken,
    AccountFilter,
    Course,
    CourseFilter,
    Entity,
    Filter,
    Key,
    MembershipFilter,
    Resource,
    ResourceFilter,
    Session,
    SessionFilter,
    Share,
    ShareFilter,
    kind_of,
)
from authz.domain.errors import AuthzError, ErrorReason, malformed
from authz.domain.exports import EXPORT_FORMAT, RESTRICTION_ENTRY, ExportSection, SubjectExport
from authz.domain.mutations import Mutation, Operation
from authz.importers.reader import DirectoryReader
from authz.importers.report import ParsedSource, RowFault, Sourced
from authz.importers.source_file import name_of, open_source

_MAX_IDS = 1000
"""Of one read."""


def read_subject_export(path: Path) -> SubjectExport:
    """The export in a file. Raises `InvalidArgumentError` for a file that is no whole export."""
    name = name_of(path)
    with open_source(path) as stream:
        data = stream.read()
    try:
        export = msgspec.json.decode(data, type=SubjectExport)
    except (ValueError, RecursionError) as error:
        problem = f"is no export of a subject ({error}); make one with `authz privacy export`"
        raise malformed(name, problem) from None
    if export.format != EXPORT_FORMAT:
        raise malformed(name, f"has the format `{export.format}`; this release reads `{EXPORT_FORMAT}`")
    found = Counter(each.section for each in export.entries)
    found[ExportSection.RECORDS] += len(export.records)
    found[ExportSection.CHANGES] += len(export.changes)
    for section, count in export.counts.items():
        if found[section] != count:
            problem = f"has {found[section]} items of {section}, and says {count}; export the subject again"
            raise malformed(name, problem)
    return export


def restriction_in(export: SubjectExport) -> str | None:
    """The reason of the subject's restriction; None if it is not restricted."""
    entries = (each for each in export.entries if each.section is ExportSection.HOLDS)
    return next((each.text for each in entries if each.name == RESTRICTION_ENTRY), None)


def records_there(export: SubjectExport, directory: DirectoryReader) -> dict[Key, Entity]:
    """Those of the records of an export that the directory has, as they are there."""
    whose, ids = export.subject, defaultdict[str, list[str]](list)
    for record in (each.record for each in export.records):
        if isinstance(record, Course | Session):
            ids[kind_of(record).name].append(record.id)
        elif isinstance(record, Resource):
            ids[record.type].append(record.id)
    wanted: list[Filter[Any]] = [
        AccountFilter(subject=whose),
        MembershipFilter(subject=whose),
        ShareFilter(subject=whose),
    ]
    filters: dict[str, type[Filter[Any]]] = {"course": CourseFilter, "session": SessionFilter}
    for name, named in ids.items():
        found_by = filters.get(name) or partial(ResourceFilter, type=name)
        parts = (tuple(named[start : start + _MAX_IDS]) for start in range(0, len(named), _MAX_IDS))
        wanted += [found_by(ids=part) for part in parts]
    there = _read(directory, wanted)
    shared = dict.fromkeys(each.record.resource for each in export.records if isinstance(each.record, Share))
    return there | _read(directory, (ShareFilter(resource=ref) for ref in shared if ref in there))


def _read(directory: DirectoryReader, wanted: Iterable[Filter[Any]]) -> dict[Key, Entity]:
    found: dict[Key, Entity] = {}
    for each in wanted:
        try:
            found |= {versioned.entity.key: versioned.entity for versioned in directory.read(each)}
        except AuthzError as error:
            if error.reason != ErrorReason.UNKNOWN_TYPE:
                raise  # else none is there, and the import says which rows fail
    return found


def records_of(export: SubjectExport, path: Path, there: Mapping[Key, Entity]) -> ParsedSource:
    """The records of an export from a file, to be written in this order. Access tokens, whose secret no
    export has, and policies are left out. A share with somebody else awaits their membership.

    A record that is `there` stays as it is: an export is older, and to write what it says could lift a
    suspension, reopen a course for everybody, or unlock a resource.
    """
    parsed, name = ParsedSource([], [], []), name_of(path)
    for each in export.records:
        record: Any = each.record
        found = there.get(record.key)
        if isinstance(record, AccessToken) or kind_of(record).service:
            parsed.notes.append(RowFault(name, 0, f"{record.key} is left out: it is made, not imported"))
            continue
        if isinstance(record, Share) and record.subject != export.subject:
            record = msgspec.structs.replace(record, awaits_membership=True)
        if found is None:
            mutation = Mutation(Operation.CREATE, record)
        elif found in (record, each.record):
            mutation = Mutation(Operation.TOUCH, found)
        else:
            text = f"{record.key} is there already, and not as in the export; it stays as it is"
            parsed.notes.append(RowFault(name, 0, text))
            continue
        parsed.mutations.append(Sourced(mutation, name, 0))
    return parsed
