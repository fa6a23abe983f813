"""What every registered kind promises to the store, the wire form and the replica."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.domain.entities import KINDS, Entity, EntityKind, Key, Kind, container_of, kind_of
from authz.domain.errors import ErrorReason, InvalidArgumentError
from authz.domain.files import files_text
from authz.domain.ids import ResourceRef, Scope, ScopeKind, Subject, SubjectType
from authz.domain.instants import MAX_INSTANT, MIN_INSTANT
from authz.domain.kinds.fields import MAX_NUMBER, Field, FieldType
from authz.domain.mutations import Mutation, Operation
from tests.properties import examples
from tests.records import chains, entities

each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
MALFORMED = "a\x00b"
BAD_VALUES: dict[FieldType, list[Any]] = {
    FieldType.ID: ["", MALFORMED],
    FieldType.ROLE: ["", MALFORMED],
    FieldType.TYPE: ["", MALFORMED],
    FieldType.TEXT: [MALFORMED, "x" * 2000, "\ud800"],
    FieldType.INSTANT: [MIN_INSTANT - 1, MAX_INSTANT + 1],
    FieldType.SUBJECT: [Subject(SubjectType.USER, MALFORMED)],
    FieldType.SCOPE: [
        Scope(ScopeKind.COURSE, MALFORMED),
        Scope(ScopeKind.SESSION),
        Scope(ScopeKind.PLATFORM, "x"),
    ],
    FieldType.NUMBER: [0, -1, MAX_NUMBER + 1],
    FieldType.FILES: [
        "",
        "[]",
        "{}",
        '{"../model.conf":""}',
        '{"a":"","a/b":""}',
        '{"a":"\\u0000"}',
        '{"a": ""}',
        '{"b":"","a":""}',
        '{"a":"' + "x" * (1 << 20) + 'y"}',
        files_text({str(number): "" for number in range(257)}),
    ],
    FieldType.RESOURCE: [ResourceRef(MALFORMED, "x"), ResourceRef("notebook", MALFORMED)],
}


def test_every_name_is_registered_in_every_place() -> None:
    assert list(KINDS) == [kind.value for kind in EntityKind]
    assert {kind.entity for kind in KINDS.values()} == set(Entity.__args__)
    assert {kind.key for kind in KINDS.values()} == set(Key.__args__)


@each_kind
def test_what_contains_a_kind_comes_before_it(kind: Kind) -> None:
    names = list(KINDS)
    containers = () if kind.container is None else kind.container.kinds
    assert all(names.index(name) < names.index(kind.name) for name in containers)


@each_kind
@examples(20)
@given(data=st.data())
def test_an_entity_and_its_key_name_the_same_record(kind: Kind, data: st.DataObject) -> None:
    *outer, entity = data.draw(chains(kind))
    assert (kind_of(entity), kind_of(entity.key)) == (kind, kind)
    assert entity.key.key == entity.key
    assert container_of(entity) == (outer[-1].key if outer else None)
    if outer and kind.container is not None:
        assert kind.container.value_of(outer[-1].key) == getattr(entity, kind.container.field)
    for target in (entity, entity.key):
        raw = msgspec.json.encode(Mutation(Operation.DELETE, target))
        assert msgspec.json.decode(raw, type=Mutation).target == target


def bad_fields(kind: Kind, fields: tuple[Field, ...]) -> list[tuple[Field, Any]]:
    return [(field, bad) for field in fields for bad in BAD_VALUES.get(field.type, ())]


@each_kind
@examples(6)
@given(data=st.data())
def test_a_malformed_field_is_refused_and_named(kind: Kind, data: st.DataObject) -> None:
    entity = data.draw(entities(kind))
    for field, bad in bad_fields(kind, kind.fields):
        broken = Mutation(Operation.TOUCH, msgspec.structs.replace(entity, **{field.name: bad}))
        with pytest.raises(InvalidArgumentError) as caught:
            broken.validate()
        assert caught.value.reason in (ErrorReason.MALFORMED_ID, ErrorReason.MALFORMED_FIELD)
        assert caught.value.metadata["field"]
        deletion = Mutation(Operation.DELETE, broken.key)
        if field in kind.key_fields:
            with pytest.raises(InvalidArgumentError):
                deletion.validate()
        else:
            deletion.validate()


@each_kind
@examples(6)
@given(data=st.data())
def test_only_a_deletion_may_carry_a_key_alone(kind: Kind, data: st.DataObject) -> None:
    key = data.draw(entities(kind)).key
    Mutation(Operation.DELETE, key).validate()
    with pytest.raises(InvalidArgumentError, match="send the whole entity") as caught:
        Mutation(Operation.TOUCH, key).validate()
    assert caught.value.reason is ErrorReason.MISSING_FIELD
