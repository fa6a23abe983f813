"""The encoding of the read model: keys and records to bytes, and back.

Every key begins with the fields by which it is looked up, so a check needs one read per record, and a list
(the resources in a scope, the memberships of a subject) is one range of keys. An id ends with a zero byte,
which no id contains; a UUID in its usual form is packed into 17 bytes instead of 37. So no key is a prefix of
another, and packing is one to one.

A record is MessagePack. Those that nearly every check reads, memberships and resources, have a form of their
own, here and in `authz.replica.resource_records`; those of other kinds are written by `authz.replica.codec`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import TypeAlias

import msgspec

from authz.domain.effective_roles import Memberships, MembershipTerms
from authz.domain.entities import Membership, MembershipStatus
from authz.domain.ids import PLATFORM, ResourceRef, Scope, ScopeKind, Subject, SubjectType
from authz.domain.instants import Instant

FORMAT = 22
"""Increase it with each change of the encoding. A replica of another format is rebuilt."""

END = b"\0"
_UUID = b"\1"
_UUID_TEXT_LENGTH = 36
_UUID_LENGTH = 16

_SUBJECTS = {SubjectType.USER: b"u", SubjectType.SERVICE: b"s"}
_SUBJECT_TYPES = {ord(byte): kind for kind, byte in _SUBJECTS.items()}
COURSE_KIND, SESSION_KIND = b"c", b"s"
"""The first byte of the scope of a course, and of a session; its id follows."""
PLATFORM_KEY = b"p"
_SCOPE_KINDS = {
    COURSE_KIND[0]: ScopeKind.COURSE,
    SESSION_KIND[0]: ScopeKind.SESSION,
    PLATFORM_KEY[0]: ScopeKind.PLATFORM,
}

_number = struct.Struct(">Q")
NUMBER_BYTES = _number.size
StoredMembership: TypeAlias = tuple[str, MembershipStatus, Instant | None, Instant | None, Instant | None]
"""Role, status, and when it starts, when it ends and until when it is suspended. The source and its reference
are left out."""
_memberships = msgspec.msgpack.Decoder(list[StoredMembership])
_encode = msgspec.msgpack.Encoder().encode


def pack_id(text: str) -> bytes:
    """An id, terminated or of fixed length, so that more can follow."""
    if len(text) == _UUID_TEXT_LENGTH and text[8] == "-":
        packed = _pack_uuid(text)
        if packed is not None:
            return packed
    return text.encode() + END


def _pack_uuid(text: str) -> bytes | None:
    try:
        body = bytes.fromhex(text.replace("-", ""))
    except ValueError:
        return None
    # With upper case or other hyphens it is a different id, and stays text.
    return _UUID + body if len(body) == _UUID_LENGTH and _uuid_text(body) == text else None


def _uuid_text(body: bytes) -> str:
    text = body.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def unpack_id(raw: bytes, start: int) -> tuple[str, int]:
    """The id that begins at `start`, and where it ends."""
    if raw[start] == _UUID[0]:
        end = start + 1 + _UUID_LENGTH
        return _uuid_text(raw[start + 1 : end]), end
    end = raw.index(END, start)
    return raw[start:end].decode(), end + 1


def whole_id(raw: bytes, start: int = 0) -> str:
    """The id that all of these bytes are, from `start` on."""
    return raw[start:-1].decode() if raw[start] != _UUID[0] else _uuid_text(raw[start + 1 :])


def subject_key(subject: Subject) -> bytes:
    return _SUBJECTS[subject.type] + pack_id(subject.id)


def read_subject(raw: bytes, start: int) -> tuple[Subject, int]:
    """The subject that begins at `start`, and where it ends."""
    text, end = unpack_id(raw, start + 1)
    return Subject(_SUBJECT_TYPES[raw[start]], text), end


def whole_subject(raw: bytes) -> Subject:
    """The subject that all of these bytes are."""
    return Subject(_SUBJECT_TYPES[raw[0]], whole_id(raw, 1))


def scope_key(scope: Scope) -> bytes:
    if scope.kind is ScopeKind.COURSE:
        return COURSE_KIND + pack_id(scope.id)
    return PLATFORM_KEY if scope.kind is ScopeKind.PLATFORM else SESSION_KIND + pack_id(scope.id)


def read_scope(raw: bytes, start: int) -> tuple[Scope, int]:
    """The scope that begins at `start`, and where it ends."""
    if raw[start] == PLATFORM_KEY[0]:
        return PLATFORM, start + 1
    text, end = unpack_id(raw, start + 1)
    return Scope(ScopeKind.COURSE if raw[start] == COURSE_KIND[0] else ScopeKind.SESSION, text), end


def ref_key(ref: ResourceRef) -> bytes:
    return ref.type.encode() + END + pack_id(ref.id)


def read_ref(raw: bytes, start: int) -> tuple[ResourceRef, int]:
    """The resource's name that begins at `start`, and where it ends."""
    end_of_type = raw.index(END, start)
    text, end = unpack_id(raw, end_of_type + 1)
    return ResourceRef(raw[start:end_of_type].decode(), text), end


def number_key(number: int) -> bytes:
    """A number, so that keys sort as numbers do."""
    return _number.pack(number)


def read_number(raw: bytes, start: int) -> tuple[int, int]:
    """The number that begins at `start`, and where it ends."""
    return _number.unpack_from(raw, start)[0], start + _number.size


def stored_membership(membership: Membership) -> StoredMembership:
    """What the replica has of a membership."""
    m = membership
    return m.role, m.status, m.starts_at, m.ends_at, m.suspended_until


def encode_memberships(held: Iterable[StoredMembership]) -> bytes:
    """The record of a subject's memberships in one scope, by role, so that equal sets are equal bytes; empty
    for none."""
    by_role = sorted(held)
    return _encode(by_role) if by_role else b""


def decode_memberships(record: bytes) -> list[StoredMembership]:
    """The memberships of a record; none for an empty one."""
    return _memberships.decode(record) if record else []


def read_memberships(raw: bytes) -> Memberships:
    """The memberships of a record that follows the first byte of its scope."""
    kind = _SCOPE_KINDS[raw[0]]
    return tuple(MembershipTerms(kind, *each) for each in decode_memberships(raw[1:]))
