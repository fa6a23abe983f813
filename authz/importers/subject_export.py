"""Reads an export of a subject: its records, and whether it is restricted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec

from authz.domain.entities import (
    AccessToken,
    Account,
    AccountStatus,
    Membership,
    MembershipStatus,
    Share,
    kind_of,
)
from authz.domain.errors import malformed
from authz.domain.exports import EXPORT_FORMAT, RESTRICTION_ENTRY, ExportSection, SubjectExport
from authz.domain.instants import Instant
from authz.domain.mutations import Mutation, Operation
from authz.importers.archive import unreadable
from authz.importers.report import ParsedSource, RowFault, Sourced


def read_subject_export(path: Path) -> SubjectExport:
    """The export in a file. Raises `InvalidArgumentError` for a file that is no whole export."""
    try:
        export = msgspec.json.decode(path.read_bytes(), type=SubjectExport)
    except OSError as error:
        raise unreadable(path, f"cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        problem = f"is no export of a subject ({error}); make one with `authz privacy export`"
        raise malformed(path.name, problem) from None
    if export.format != EXPORT_FORMAT:
        raise malformed(path.name, f"has the format `{export.format}`; this release reads `{EXPORT_FORMAT}`")
    found = Counter(each.section for each in export.entries)
    found[ExportSection.RECORDS] += len(export.records)
    found[ExportSection.CHANGES] += len(export.changes)
    for section, count in export.counts.items():
        if found[section] != count:
            problem = f"has {found[section]} items of {section}, and says {count}; export the subject again"
            raise malformed(path.name, problem)
    return export


def restriction_in(export: SubjectExport) -> str | None:
    """The reason of the subject's restriction; None if it is not restricted."""
    entries = (each for each in export.entries if each.section is ExportSection.HOLDS)
    return next((each.text for each in entries if each.name == RESTRICTION_ENTRY), None)


def records_of(
    export: SubjectExport, path: Path, held: Iterable[Account | Membership], *, now: Instant
) -> ParsedSource:
    """The records of an export from a file, to be written in this order. Access tokens, whose secret no
    export has, and policies are left out. A share with somebody else awaits their membership.

    `held` are the account and the memberships that the directory has of the subject: no import lifts a
    suspension, so one that is suspended at `now` stays as it is.
    """
    parsed = ParsedSource([], [], [])
    suspended = {each.key: each for each in held if _is_suspended(each, now)}
    for each in export.records:
        record: Any = each.record
        if suspended.get(record.key, record) != record:
            text = f"{record.key} stays suspended; only a person may lift that"
            parsed.notes.append(RowFault(path.name, 0, text))
            continue
        if isinstance(record, AccessToken) or kind_of(record).service:
            parsed.notes.append(RowFault(path.name, 0, f"{record.key} is left out: it is made, not imported"))
            continue
        if isinstance(record, Share) and record.subject != export.subject:
            record = msgspec.structs.replace(record, awaits_membership=True)
        parsed.mutations.append(Sourced(Mutation(Operation.TOUCH, record), path.name, 0))
    return parsed


def _is_suspended(record: Account | Membership, now: Instant) -> bool:
    is_future = record.suspended_until is not None and record.suspended_until > now
    if isinstance(record, Account):
        return record.status is AccountStatus.SUSPENDED and (is_future or record.suspended_until is None)
    return is_future or record.status is MembershipStatus.SUSPENDED
