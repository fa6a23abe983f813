"""Records of every registered kind as messages and back."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.domain.entities import KINDS, EntityKind, Kind, ShareFilter, Versioned
from authz.domain.errors import InvalidArgumentError
from authz.domain.ids import ResourceRef
from authz.domain.kinds.fields import FieldType, fields_of
from authz.domain.mutations import Expectation, Mutation, Operation, Precondition, update
from authz.domain.ports import Listing, Page
from authz.domain.tokens import ConsistencyToken
from authz.v1 import common_pb2
from authz.v1 import directory_pb2 as pb
from authz.v1.common_pb2 import ConsistencyToken as ConsistencyTokenMessage
from authz.wire.changes import ENTITY_KINDS, parse_logged_mutation
from authz.wire.entities import (
    OPERATIONS,
    entity_message,
    mutation_message,
    parse_mutation,
    parse_precondition,
    parse_versioned,
    precondition_message,
)
from authz.wire.fields import name_in_message, parse_files, parser_of
from authz.wire.filters import READ_CALLS
from tests.properties import examples
from tests.records import entities

each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
each_written = pytest.mark.parametrize(
    "kind", [kind for kind in KINDS.values() if not kind.service], ids=lambda kind: kind.name
)
"""The kinds that `Write` and `Import` take."""
each_other = pytest.mark.parametrize(
    "kind", [kind for kind in KINDS.values() if kind.service], ids=lambda kind: kind.name
)
"""The kinds that only the calls of another service write, which ask for permissions of their own."""


@each_kind
@examples(30)
@given(data=st.data())
def test_what_is_sent_is_read_as_it_was(kind: Kind, data: st.DataObject) -> None:
    entity = data.draw(entities(kind))
    versioned = Versioned(entity, 7)
    assert parse_versioned(sent(entity_message(versioned))) == versioned
    logged = Mutation(Operation.DELETE, entity)
    assert parse_logged_mutation(sent(mutation_message(logged))) == logged
    precondition = Precondition(entity.key, Expectation.AT_REVISION, 7)
    assert parse_precondition(sent(precondition_message(precondition))) == precondition


def test_a_field_that_its_message_lacks_is_named_before_any_call() -> None:
    class Graded(msgspec.Struct):
        graded: bool = False
        grade_of: ResourceRef | None = None

    for field, lacking in zip(fields_of(Graded), ("graded", "grade_of_type"), strict=True):
        with pytest.raises(TypeError, match=rf"Resource has no field `{lacking}`; add it in protos/.*common"):
            parser_of(field, common_pb2.Resource.DESCRIPTOR)


@each_written
@examples(30)
@given(data=st.data())
def test_a_mutation_that_is_sent_is_read_as_it_was(kind: Kind, data: st.DataObject) -> None:
    entity = data.draw(entities(kind))
    for operation in (Operation.CREATE, Operation.TOUCH, Operation.DELETE):
        target = entity.key if operation is Operation.DELETE else entity
        mutation = Mutation(operation, target)
        assert parse_mutation(sent(mutation_message(mutation))) == mutation
    whole = mutation_message(Mutation(Operation.DELETE, entity))
    assert parse_mutation(whole) == Mutation(Operation.DELETE, entity.key)


@each_other
@pytest.mark.parametrize("operation", Operation)
@examples(1)
@given(data=st.data())
def test_no_mutation_that_is_sent_has_a_record_of_another_service(
    kind: Kind, operation: Operation, data: st.DataObject
) -> None:
    message = mutation_message(Mutation(Operation.TOUCH, data.draw(entities(kind))))
    message.operation = OPERATIONS.number(operation)
    with pytest.raises(InvalidArgumentError, match=f"{kind.name}, which only {kind.service} writes"):
        parse_mutation(sent(message))


@each_written
@examples(10)
@given(data=st.data())
def test_a_field_that_is_absent_has_its_default(kind: Kind, data: st.DataObject) -> None:
    entity = data.draw(entities(kind))
    message = mutation_message(Mutation(Operation.CREATE, entity))
    body: Any = getattr(message, kind.name)
    required: dict[str, Any] = {}
    for field in kind.fields:
        if field.default is msgspec.NODEFAULT:
            required[field.name] = getattr(entity, field.name)
        else:
            body.ClearField(name_in_message(field))
    assert parse_mutation(sent(message)) == Mutation(Operation.CREATE, kind.entity(**required))


@each_written
@examples(1)
@given(data=st.data())
def test_a_required_field_that_is_absent_is_named(kind: Kind, data: st.DataObject) -> None:
    entity = data.draw(entities(kind))
    # The directory refuses an empty text.
    required = [f for f in kind.fields if f.default is msgspec.NODEFAULT and f.type is not FieldType.TEXT]
    assert required
    for field in required:
        message = mutation_message(Mutation(Operation.CREATE, entity))
        for part in ("_type", "_id") if field.type is FieldType.RESOURCE else ("",):
            getattr(message, kind.name).ClearField(field.name + part)
        with pytest.raises(InvalidArgumentError, match=rf"{kind.name}\.{field.name}"):
            parse_mutation(sent(message))


@pytest.mark.parametrize("given_part", ["resource_type", "resource_id"])
def test_half_a_resource_is_no_filter(given_part: str) -> None:
    half: dict[str, Any] = {given_part: "notebook"}
    with pytest.raises(InvalidArgumentError, match="is missing; set it"):
        READ_CALLS[ShareFilter].parse(pb.ReadSharesRequest(**half))


@each_written
@examples(30)
@given(data=st.data())
def test_an_update_carries_the_fields_that_it_names_and_no_other(kind: Kind, data: st.DataObject) -> None:
    entity = data.draw(entities(kind))
    names = data.draw(st.lists(st.sampled_from(sorted(kind.updatable)), min_size=1, unique=True))
    mutation = update(entity.key, **{name: getattr(entity, name) for name in names})
    message = mutation_message(mutation)
    assert len(message.update_mask.paths) == len(names)
    assert parse_mutation(sent(message)) == mutation
    everything = Mutation(
        Operation.UPDATE, entity.key, tuple((n, getattr(entity, n)) for n in kind.updatable)
    )
    whole = mutation_message(Mutation(Operation.TOUCH, entity))
    whole.operation = pb.OPERATION_UPDATE
    whole.update_mask.paths.append("*")
    assert parse_mutation(sent(whole)) == everything


@each_written
@examples(10)
@given(data=st.data())
def test_a_filter_is_read_as_it_was_sent(kind: Kind, data: st.DataObject) -> None:
    entity = data.draw(entities(kind))
    read = READ_CALLS[kind.filter_type]
    assert read.parse(read.request()) == (kind.filter_type(), Page(100))
    given_values = {asked.name: getattr(entity, field.name) for asked, field in kind.filters}
    wanted = {
        asked.name: (given_values[asked.name],) if asked.is_many else given_values[asked.name]
        for asked, _ in kind.filters
        if given_values[asked.name] != ""
    }
    page = Page(7, "token")
    sought = kind.filter_type(**wanted)
    assert read.parse(sent(read.format(sought, page))) == (sought, page)
    listing = Listing((Versioned(entity, 7),), "more", ConsistencyToken("db", 7))
    response = sent(
        read.response(
            map(entity_message, listing.items),
            next_page_token=listing.next_token,
            read_at=ConsistencyTokenMessage(token="t"),
            now=8,
        )
    )
    assert (read.records(response), response.next_page_token) == ([Versioned(entity, 7)], "more")
    assert response.server_time.ToMicroseconds() == 8


def test_a_file_that_is_sent_twice_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match=r"names the file `default\.csv` twice"):
        parse_files([common_pb2.PolicyFile(name="default.csv")] * 2, field="files")


def test_every_kind_can_be_watched() -> None:
    assert len({ENTITY_KINDS.number(kind) for kind in EntityKind}) == len(KINDS)


def sent(message: Any) -> Any:
    """The message as the other side gets it."""
    return type(message).FromString(message.SerializeToString())
