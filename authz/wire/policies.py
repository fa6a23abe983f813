"""Versions of policies between protobuf and the domain."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import islice

import msgspec

from authz.domain.entities import PolicyVersion, Versioned
from authz.domain.errors import PolicyFault, PolicyWarning, malformed
from authz.domain.files import NO_FILES
from authz.domain.ids import PLATFORM, Scope, course_scope, parse_id
from authz.domain.kinds.fields import MAX_NUMBER, validate_text
from authz.domain.policy_changes import CellChange, PolicyDiff, PolicySource, sentences
from authz.v1 import common_pb2
from authz.v1 import policy_pb2 as pb
from authz.wire.entities import entity_message
from authz.wire.fields import parse_files

MAX_VERSIONS_PER_PAGE = 100
_MAX_AUTHOR_LENGTH = 256
_MAX_FAULTS = 1000


def parse_policy_scope(course_id: str) -> Scope:
    """Whose policy a request is about: a course's, or the platform's if it names none."""
    return course_scope(parse_id(course_id, field="course_id")) if course_id else PLATFORM


def parse_source(
    files: Collection[common_pb2.PolicyFile], number: int, *, files_field: str, number_field: str
) -> PolicySource:
    """Files or a number, not both."""
    if not files:
        return PolicySource(number=parse_number(number, field=number_field))
    if number:
        raise malformed(number_field, f"is {number}, and {files_field} has files; send one of the two")
    return PolicySource(parse_files(files, field=files_field))


def parse_author(text: str) -> str:
    """Who made a change, as a version keeps it."""
    validate_text(text, field="author", max_length=_MAX_AUTHOR_LENGTH)
    return text


def parse_number(number: int, *, field: str, least: int = 0) -> int:
    """The number of a version."""
    if not least <= number <= MAX_NUMBER:
        raise malformed(field, f"is {number}; it must be the number of a version, such as 1")
    return number


def page_size_of(size: int) -> int:
    """The size of a page of versions; 0 means 100."""
    if not 0 <= size <= MAX_VERSIONS_PER_PAGE:
        raise malformed("page_size", f"is {size}; ask for 1 to {MAX_VERSIONS_PER_PAGE}")
    return size or MAX_VERSIONS_PER_PAGE


def version_message(version: PolicyVersion, revision: int) -> common_pb2.PolicyVersion:
    """A version with its files."""
    message: common_pb2.PolicyVersion = entity_message(Versioned(version, revision))
    return message


def summary_message(version: PolicyVersion, revision: int = 0) -> common_pb2.PolicyVersion:
    """A version without its files."""
    return version_message(msgspec.structs.replace(version, files=NO_FILES), revision)


def diff_message(found: PolicyDiff) -> pb.DiffPolicyVersionsResponse:
    """What changes, in words and as data."""
    cells = [
        pb.PolicyCellChange(**msgspec.structs.asdict(cell), sentences=sentences(cell)) for cell in found.cells
    ]
    return pb.DiffPolicyVersionsResponse(declarations=found.declarations, cells=cells)


def parse_diff(response: pb.DiffPolicyVersionsResponse) -> PolicyDiff:
    """The changes of a message."""
    cells = (
        CellChange(
            role=cell.role,
            type=cell.type,
            action=cell.action,
            course_id=cell.course_id or None,
            gains=tuple(cell.gains),
            losses=tuple(cell.losses),
            blocks=tuple(cell.blocks),
            unblocks=tuple(cell.unblocks),
        )
        for cell in response.cells
    )
    return PolicyDiff(tuple(response.declarations), tuple(cells))


def warning_messages(warnings: Iterable[PolicyWarning]) -> list[pb.PolicyWarning]:
    """Every warning."""
    return [
        pb.PolicyWarning(where=warning.where, message=warning.text, role=warning.role) for warning in warnings
    ]


def fault_messages(faults: Iterable[PolicyFault]) -> list[pb.PolicyFault]:
    """The first faults as messages."""
    return [
        pb.PolicyFault(file=fault.file, line=fault.line, column=fault.column, message=fault.text)
        for fault in islice(faults, _MAX_FAULTS)
    ]
