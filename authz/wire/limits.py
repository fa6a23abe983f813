"""How much one request may hold: counted in its bytes before it is parsed, and in its fields after.

protobuf parses a whole message before anybody sees it: two million empty items, in 4 MiB, take 0.2 s of the
event loop and 180 MB.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from authz.domain.decisions import MAX_BATCH_ITEMS
from authz.domain.drafts import MAX_CONDITIONS, MAX_EDITS
from authz.domain.errors import ErrorReason, InvalidArgumentError, invalid
from authz.domain.files import MAX_FILES
from authz.domain.mutations import MAX_MUTATIONS_PER_WRITE, MAX_PRECONDITIONS_PER_WRITE

_MAX_IDS = 1000
_MAX_SCOPES = 100
_MAX_CHOICES = 100
_MAX_PATHS = 100

MAX_ITEMS = {
    "authz.v1.BatchCheckRequest.items": MAX_BATCH_ITEMS,
    "authz.v1.BatchListActionsRequest.items": MAX_BATCH_ITEMS,
    "authz.v1.AuthorizeSourcesRequest.sources": MAX_BATCH_ITEMS,
    "authz.v1.ListResourcesRequest.types": _MAX_CHOICES,
    "authz.v1.WriteRequest.mutations": MAX_MUTATIONS_PER_WRITE,
    "authz.v1.WriteRequest.preconditions": MAX_PRECONDITIONS_PER_WRITE,
    "authz.v1.ImportRequest.mutations": MAX_MUTATIONS_PER_WRITE,
    "authz.v1.ReadCoursesRequest.ids": _MAX_IDS,
    "authz.v1.ReadCoursesRequest.states": _MAX_CHOICES,
    "authz.v1.ReadSessionsRequest.ids": _MAX_IDS,
    "authz.v1.ReadSessionsRequest.states": _MAX_CHOICES,
    "authz.v1.ReadMembershipsRequest.statuses": _MAX_CHOICES,
    "authz.v1.ReadResourcesRequest.ids": _MAX_IDS,
    "authz.v1.ReadAccountsRequest.statuses": _MAX_CHOICES,
    "authz.v1.ApplyPolicyRequest.files": MAX_FILES,
    "authz.v1.ValidatePolicyRequest.files": MAX_FILES,
    "authz.v1.DiffPolicyVersionsRequest.before_files": MAX_FILES,
    "authz.v1.DiffPolicyVersionsRequest.after_files": MAX_FILES,
    "authz.v1.EditPolicyDraftRequest.edits": MAX_EDITS,
    "authz.v1.PolicyCellEdit.when": MAX_CONDITIONS,
    "authz.v1.PreviewPolicyRequest.files": MAX_FILES,
    "authz.v1.PolicyVersion.files": 0,  # no request holds one
    "authz.v1.ReadChangesRequest.kinds": _MAX_CHOICES,
    "authz.v1.WatchRequest.scopes": _MAX_SCOPES,
    "authz.v1.WatchRequest.kinds": _MAX_CHOICES,
    "google.protobuf.FieldMask.paths": _MAX_PATHS,
}
"""The limit of every repeated field of every request and of the messages in it; a request whose field is
missing here cannot be served. Duplicates count."""

SMALL_BYTES = 64 * 1024
"""More than all fields of a request that are not repeated need. A message up to this size is parsed at once:
whatever it holds, that takes at most a few milliseconds."""
_MAX_ITEM_BYTES = {FieldDescriptor.CPPTYPE_MESSAGE: 4096, FieldDescriptor.CPPTYPE_STRING: 512}
_MAX_CHOICE_BYTES = 16
_MAX_OTHER_FIELDS = 1000
"""Those that are not repeated, and those of a newer version of the API."""
_MAX_OTHER_FIELDS_INSIDE = 100
_CONTINUES = 0x80


class RequestLimits:
    """The limits of one request message."""

    def __init__(self, message: Descriptor) -> None:
        self._name = message.name.removesuffix("Request")
        self._fields: dict[int, tuple[str, int]] = {}
        """Of the repeated fields, by number: name and limit."""
        self._inside: dict[int, RequestLimits] = {}
        """By number, of the fields whose messages hold lists."""
        self.max_bytes = SMALL_BYTES
        """The size of the largest message that is parsed."""
        for field in message.fields:
            inside = None if field.message_type is None else RequestLimits(field.message_type)
            if inside is not None and (inside._fields or inside._inside):
                self._inside[field.number] = inside
            if field.is_repeated:
                limit = MAX_ITEMS[field.full_name]
                self._fields[field.number] = (field.name, limit)
                self.max_bytes += limit * _MAX_ITEM_BYTES.get(field.cpp_type, _MAX_CHOICE_BYTES)
        self.bounds_items = bool(self._fields)
        """Whether the message has a repeated field."""

    def require_parsable(self, received: bytes) -> None:
        """Raise `InvalidArgumentError` for a message that is not worth parsing: TOO_MANY_ITEMS, or
        MALFORMED_FIELD for too many bytes."""
        size_bytes = len(received)
        if size_bytes <= SMALL_BYTES:
            return
        if size_bytes > self.max_bytes:
            raise self._refusal(f"has more than {self.max_bytes} bytes; send fewer")
        try:
            self._require_few_fields(received, _MAX_OTHER_FIELDS)
        except IndexError:
            raise self.unreadable() from None

    def require_items(self, request: Any) -> None:
        """Raise `InvalidArgumentError` (TOO_MANY_ITEMS) for a field with more items than its limit."""
        for name, limit in self._fields.values():
            _require_at_most(limit, len(getattr(request, name)), name)

    def _require_few_fields(self, received: bytes, max_others: int) -> None:
        """Count the fields of a message without parsing them; stop at the first that is one too many.

        A list of numbers in one field counts once: to parse it is cheap, and `require_items` counts them.
        """
        counts, others = dict.fromkeys(self._fields, 0), 0
        for number, start, end in _fields_of(received):
            if number in self._inside:
                self._inside[number]._require_few_fields(received[start:end], _MAX_OTHER_FIELDS_INSIDE)
            if number in counts:
                counts[number] += 1
                name, limit = self._fields[number]
                _require_at_most(limit, counts[number], name)
            else:
                others += 1
                if others > max_others:
                    raise self._refusal(f"has more than {max_others} fields that are not repeated")

    def unreadable(self) -> InvalidArgumentError:
        """The error for bytes that are not this message."""
        return self._refusal("cannot be read; send a message of package authz.v1")

    def _refusal(self, problem: str) -> InvalidArgumentError:
        return invalid("request", f"the request of {self._name} {problem}")


def _require_at_most(limit: int, count: int, field: str) -> None:
    if count > limit:
        raise InvalidArgumentError(
            ErrorReason.TOO_MANY_ITEMS,
            f"{field} has more than {limit} items; send at most {limit}",
            field=field,
            limit=str(limit),
        )


def _fields_of(message: bytes) -> Iterator[tuple[int, int, int]]:
    """The number of each field of an encoded message, in order, and where its value starts and ends.

    Raises `IndexError` at what is no field.

    Source: https://protobuf.dev/programming-guides/encoding/
    """
    position, end = 0, len(message)
    while position < end:
        tag, position = _read_varint(message, position)
        start = position
        match tag & 7:
            case 0:
                _, position = _read_varint(message, position)
            case 1:
                position += 8
            case 2:
                length, start = _read_varint(message, position)
                position = start + length
            case 5:
                position += 4
            case _:  # a group, which package authz.v1 does not have
                raise IndexError
        yield tag >> 3, start, position


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    """A number of up to 64 bits, and the position behind it. Raises `IndexError` beyond the end."""
    value = 0
    for shift in range(0, 64, 7):
        byte = message[position]
        position += 1
        value |= (byte & ~_CONTINUES) << shift
        if byte < _CONTINUES:
            return value, position
    raise IndexError
