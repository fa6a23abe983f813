"""The encoding of the read model: keys and records to bytes, and back.

Every key begins with the fields by which it is looked up, so a check needs one read per record, and a list
(the resources in a scope, the memberships of a subject) is one range of keys. An id ends with a zero byte,
which no id contains; a UUID in its usual form is packed into 17 bytes instead of 37. So no key is a prefix of
another, and packing is one to one.

The records that nearly every check reads, memberships and resources, are written here byte by byte,
memberships without their source and reference. Other kinds are written by `authz.replica.codec`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

from authz.domain.context import ResourceContext, ScopeContext
from authz.domain.effective_roles import Memberships, MembershipTerms
from authz.domain.entities import Membership, MembershipStatus, Resource, Visibility
from authz.domain.facts import OWN, Times, resource_facts
from authz.domain.ids import PLATFORM, ResourceRef, Scope, ScopeKind, Subject, SubjectType
from authz.domain.instants import Instant

FORMAT = 15
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

_STATUSES = tuple(MembershipStatus)
_STATUS_NUMBERS = {status: number for number, status in enumerate(_STATUSES)}
_MEMBERSHIP_TIMES = (16, 32, 64)
"""The flags of `starts_at`, `ends_at` and `suspended_until`."""
_MEMBERSHIP_TIMED = sum(_MEMBERSHIP_TIMES)
_VISIBILITIES = tuple(Visibility)

_PUBLISHED, _LOCKED, _AI, _SHARED = 1, 2, 4, 64
_CREATED = 32
_RESOURCE_TIMES = (8, 16, _CREATED)
"""The flags of `available_from`, `available_until` and `created_at`."""
_TIMED = sum(_RESOURCE_TIMES)
_HEAD = 4
_NO_TIMES = Times()
_FACTS = tuple(
    resource_facts(
        Resource(
            type="",
            id="",
            scope=PLATFORM,
            visibility=_VISIBILITIES[min(number & 3, len(_VISIBILITIES) - 1)],
            published=bool(number >> 2 & _PUBLISHED),
            locked=bool(number >> 2 & _LOCKED),
            ai_allowed=bool(number >> 2 & _AI),
        )
    )
    for number in range(32)
)
"""The facts whose resource part holds, by the three lowest flags and the number of the visibility."""

_instant = struct.Struct("<q")
_number = struct.Struct(">Q")


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


def membership_record(membership: Membership) -> bytes:
    """One membership of a subject in a scope: its length, then its fields, the role last."""
    instants = (membership.starts_at, membership.ends_at, membership.suspended_until)
    flags, times = _pack_times(_MEMBERSHIP_TIMES, instants)
    body = bytes((_STATUS_NUMBERS[membership.status] | flags,)) + times + membership.role.encode()
    return bytes((len(body),)) + body


def split_memberships(raw: bytes) -> dict[str, bytes]:
    """The records of a subject's memberships in one scope, by role."""
    found: dict[str, bytes] = {}
    start = 0
    while start < len(raw):
        end = start + 1 + raw[start]
        flags = raw[start + 1]
        times = (flags & _MEMBERSHIP_TIMED).bit_count() * _instant.size
        found[raw[start + 2 + times : end].decode()] = raw[start:end]
        start = end
    return found


def join_memberships(records: dict[str, bytes]) -> bytes:
    """All of them as one value, in the order of the roles, so that equal sets are equal bytes."""
    return b"".join(records[role] for role in sorted(records))


def read_memberships(raw: bytes) -> Memberships:
    """The memberships of a value of `join_memberships` that follows the first byte of its scope."""
    kind = _SCOPE_KINDS[raw[0]]
    return tuple(_read_membership(kind, role, record) for role, record in split_memberships(raw[1:]).items())


def _read_membership(kind: ScopeKind, role: str, record: bytes) -> MembershipTerms:
    flags = record[1]
    return MembershipTerms(
        kind, role, _STATUSES[flags & 15], *_unpack_times(_MEMBERSHIP_TIMES, flags, record, 2)
    )


def resource_record(resource: Resource, *, shared: bool = False) -> bytes:
    """A resource without type and id: flags, visibility, lengths, scope, owner, times.

    `shared` says whether the resource has any share, so that a check without one skips the lookup.
    """
    instants = (resource.available_from, resource.available_until, resource.created_at)
    flags, times = _pack_times(_RESOURCE_TIMES, instants)
    flags |= (
        (_SHARED if shared else 0)
        | (_PUBLISHED if resource.published else 0)
        | (_LOCKED if resource.locked else 0)
        | (_AI if resource.ai_allowed else 0)
    )
    scope = scope_key(resource.scope)
    owner = b"" if resource.owner is None else subject_key(resource.owner)
    head = (flags, _VISIBILITIES.index(resource.visibility), len(scope), len(owner))
    return bytes(head) + scope + owner + times


def read_resource(ref: ResourceRef, raw: bytes) -> Resource:
    """The resource of a record."""
    flags, visibility, scope_length, owner_length = raw[:_HEAD]
    times = _read_times(raw, flags, _HEAD + scope_length + owner_length)
    return Resource(
        type=ref.type,
        id=ref.id,
        scope=read_scope(raw, _HEAD)[0],
        owner=read_subject(raw, _HEAD + scope_length)[0] if owner_length else None,
        visibility=_VISIBILITIES[visibility],
        published=flags & _PUBLISHED != 0,
        available_from=times.available_from,
        available_until=times.available_until,
        created_at=times.created_at,
        locked=flags & _LOCKED != 0,
        ai_allowed=flags & _AI != 0,
    )


def is_shared(raw: bytes) -> bool:
    """Whether the resource of a record has any share. False for an empty record."""
    return raw != b"" and raw[0] & _SHARED != 0


def with_shared(raw: bytes, shared: bool) -> bytes:
    """The same record, saying whether there is any share of the resource."""
    return bytes((raw[0] & ~_SHARED | (_SHARED if shared else 0),)) + raw[1:]


def read_context(raw: bytes) -> tuple[bytes, bytes, int, Times, bool]:
    """What a decision needs of a resource's record: the key of its scope, the key of its owner (empty for
    none), the facts whose resource part holds, its times, and whether there is any share of it."""
    flags, visibility, scope_length, owner_length = raw[:_HEAD]
    scope_end = _HEAD + scope_length
    owner_end = scope_end + owner_length
    facts = _FACTS[(flags & 7) << 2 | visibility]
    times = _read_times(raw, flags, owner_end)
    return raw[_HEAD:scope_end], raw[scope_end:owner_end], facts, times, flags & _SHARED != 0


def read_contents(
    records: Iterable[tuple[bytes, bytes]], start: int, scope: ScopeContext, asker: bytes, *, timed: bool
) -> Iterator[tuple[str, ResourceContext]]:
    """The ids of resources in a scope, which begin at `start` of the keys of their records, and how the
    subject with the key `asker` finds each. Without `timed`, their times are left out."""
    possible, everywhere, times = scope.state.possible, scope.state.facts, _NO_TIMES
    for key, raw in records:
        flags, owner_start = raw[0], _HEAD + raw[2]
        facts = _FACTS[(flags & 7) << 2 | raw[1]] & possible | everywhere
        if raw[3] and raw.startswith(asker, owner_start):  # no key is a prefix of another
            facts |= OWN
        if timed:
            times = _read_times(raw, flags, owner_start + raw[3])
        yield whole_id(key, start), ResourceContext(scope, facts, times, flags & _SHARED != 0)


def _read_times(raw: bytes, flags: int, place: int) -> Times:
    timed = flags & _TIMED
    if timed == _CREATED:  # by far the most frequent, and a list reads thousands
        return Times(None, None, _instant.unpack_from(raw, place)[0])
    if not timed:
        return _NO_TIMES
    return Times(*_unpack_times(_RESOURCE_TIMES, flags, raw, place))


def _pack_times(names: tuple[int, ...], instants: Iterable[Instant | None]) -> tuple[int, bytes]:
    """A flag for each of the instants that there are, and these one after the other."""
    flags, packed = 0, b""
    for flag, instant in zip(names, instants, strict=True):
        if instant is not None:
            flags |= flag
            packed += _instant.pack(instant)
    return flags, packed


def _unpack_times(names: tuple[int, ...], flags: int, raw: bytes, place: int) -> Iterator[Instant | None]:
    for flag in names:
        if flags & flag:
            yield _instant.unpack_from(raw, place)[0]
            place += _instant.size
        else:
            yield None


def tombstone_record(deleted_at: Instant) -> bytes:
    return _instant.pack(deleted_at)


def read_tombstone(record: bytes) -> Instant:
    """When it was deleted."""
    found: Instant = _instant.unpack(record)[0]
    return found
