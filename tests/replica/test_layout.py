"""What is written is read back, keys keep things apart, and equal states are equal bytes."""

from __future__ import annotations

import hashlib
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.domain.context import resource_context_of, scope_context_of
from authz.domain.entities import (
    Course,
    CourseState,
    Entity,
    Membership,
    MembershipStatus,
    Resource,
    Session,
    SessionState,
    Share,
    ShareLevel,
    Visibility,
    kind_of,
)
from authz.domain.ids import PLATFORM, ResourceRef, Scope, ScopeKind, Subject, SubjectType
from authz.domain.instants import MAX_INSTANT, MIN_INSTANT
from authz.replica import layout
from authz.replica.kinds import CODECS
from authz.replica.resource_records import decode_resource, encode_resource, with_shared
from tests.facts import FLAGS, terms_of

IDS = st.one_of(
    st.text("AZaz09._~@+=|/:-", min_size=1, max_size=128),
    st.uuids().map(str),
    st.uuids().map(lambda u: str(u).upper()),
    st.uuids().map(lambda u: u.hex),
    st.uuids().map(lambda u: f"{u}x"),
)
SUBJECTS = st.builds(Subject, st.sampled_from(SubjectType), IDS)
SCOPES = st.one_of(
    st.just(PLATFORM), st.builds(Scope, st.sampled_from([ScopeKind.COURSE, ScopeKind.SESSION]), IDS)
)
NAMES = st.from_regex(r"[a-z][a-z0-9_]{0,63}", fullmatch=True)
REFS = st.builds(ResourceRef, NAMES, IDS)
TIMES = st.none() | st.integers(MIN_INSTANT, MAX_INSTANT)
RESOURCES = st.builds(
    Resource,
    type=NAMES,
    id=IDS,
    scope=SCOPES,
    owner=st.none() | SUBJECTS,
    visibility=st.sampled_from(Visibility),
    available_from=TIMES,
    available_until=TIMES,
    created_at=TIMES,
    **FLAGS,
)
MEMBERSHIPS = st.builds(
    Membership,
    subject=SUBJECTS,
    scope=SCOPES,
    role=NAMES,
    status=st.sampled_from(MembershipStatus),
    starts_at=TIMES,
    ends_at=TIMES,
)


@given(SUBJECTS, SCOPES, REFS)
def test_keys_read_back_one_after_the_other(subject: Subject, scope: Scope, ref: ResourceRef) -> None:
    raw = layout.subject_key(subject) + layout.scope_key(scope) + layout.ref_key(ref)
    read_subject, end = layout.read_subject(raw, 0)
    read_scope, end = layout.read_scope(raw, end)
    read_ref, end = layout.read_ref(raw, end)
    assert (read_subject, read_scope, read_ref, end) == (subject, scope, ref, len(raw))


@given(IDS, IDS)
def test_no_key_is_the_beginning_of_another(one: str, other: str) -> None:
    first, second = layout.pack_id(one), layout.pack_id(other)
    assert first.startswith(second) is (one == other)


@pytest.mark.parametrize(
    ("text", "length"),
    [
        (str(uuid.UUID(int=0)), 17),
        ("01234567-89ab-cdef-0123-456789abcdef", 17),
        ("01234567-89AB-CDEF-0123-456789ABCDEF", 37),
        ("0123456789ab-cdef-0123-456789abcdef-", 37),
        ("01234567-89ab-cdef-0123-456789abcdeg", 37),
        ("01234567-89ab-cdef-01234-56789abcdef", 37),
        ("0123456789abcdef0123456789abcdef", 33),
        ("u1", 3),
    ],
)
def test_only_a_uuid_in_its_usual_form_is_packed(text: str, length: int) -> None:
    packed = layout.pack_id(text)
    assert len(packed) == length
    assert layout.unpack_id(packed, 0) == (text, length)


@given(RESOURCES, SUBJECTS, st.booleans())
def test_a_resource_reads_back_whole_and_as_a_context(
    resource: Resource, other: Subject, is_shared: bool
) -> None:
    record = decode_resource(encode_resource(resource, is_shared=is_shared))
    assert record.resource(resource.key) == resource
    assert record.scope == layout.scope_key(resource.scope)
    place = scope_context_of(Course(id="c", ai_enabled=True), Session(id="s"))
    for asker in (other, resource.owner):
        if asker is not None:
            expected = resource_context_of(resource, place, asker)
            found = record.context(place, layout.subject_key(asker))
            assert (found.facts, found.times) == (expected.facts, expected.times)
            assert found.is_shared is is_shared


def test_the_numbers_of_attributes_change_only_with_the_format() -> None:
    """Else a replica that is there already would be read as if other things were published or private."""
    numbers = []
    for visibility in Visibility:
        resource = Resource(type="notebook", id="n", scope=PLATFORM, visibility=visibility, published=True)
        numbers += [
            decode_resource(encode_resource(resource, is_shared=each)).attributes for each in (False, True)
        ]
    assert (layout.FORMAT, numbers) == (22, [8, 9, 24, 25, 40, 41]), "increase FORMAT, and give both here"


def test_the_fields_of_records_change_only_with_the_format() -> None:
    """Else a replica that is there already, of which no record has a new field, cannot be read."""
    fields = [(name, [(f.name, f.type.name) for f in codec.kind.fields]) for name, codec in CODECS.items()]
    digest = hashlib.sha256(repr(fields).encode()).hexdigest()[:12]
    assert (layout.FORMAT, digest) == (22, "78c3c56ce0ab"), "increase FORMAT, and give both here"


@given(RESOURCES)
def test_a_record_says_whether_it_is_shared_and_all_else_stays(resource: Resource) -> None:
    alone, shared = (encode_resource(resource, is_shared=each) for each in (False, True))
    assert with_shared(decode_resource(alone), True) == shared
    assert with_shared(decode_resource(shared), False) == alone


@given(st.lists(MEMBERSHIPS, max_size=4, unique_by=lambda membership: membership.role))
def test_the_memberships_of_a_scope_read_back_in_whatever_order_they_came(held: list[Membership]) -> None:
    held = [membership for membership in held if membership.scope.kind is ScopeKind.COURSE]
    stored = [*map(layout.stored_membership, held)]
    record = layout.encode_memberships(stored)
    assert layout.encode_memberships(reversed(stored)) == record
    assert sorted(layout.decode_memberships(record)) == sorted(stored)
    read = layout.read_memberships(layout.COURSE_KIND + record)
    assert sorted(map(str, read)) == sorted(str(terms_of(m)) for m in held)


COURSES = st.builds(
    Course,
    id=IDS,
    state=st.sampled_from(CourseState),
    ai_enabled=st.booleans(),
    edit_window_us=st.integers(0, MAX_INSTANT),
)
SESSIONS = st.builds(
    Session,
    id=IDS,
    course_id=st.none() | IDS,
    state=st.sampled_from(SessionState),
    starts_at=TIMES,
    ends_at=TIMES,
    open_to_course=st.booleans(),
)
SHARES = st.builds(Share, resource=REFS, subject=SUBJECTS, level=st.sampled_from(ShareLevel))


@given(st.one_of(COURSES, SESSIONS, RESOURCES, SHARES))
def test_a_record_reads_back(entity: Entity) -> None:
    codec = CODECS[kind_of(entity).name]
    assert codec.read(codec.key_of(entity), codec.record_of(entity, b"")) == entity
