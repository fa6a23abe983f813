"""Records of every registered kind as messages and back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from authz.domain.entities import KINDS, EntityKind, Kind, Versioned
from authz.domain.mutations import Expectation, Mutation, Operation, Precondition, update
from authz.v1 import directory_pb2 as pb
from authz.wire.changes import kind_number
from authz.wire.entities import (
    entity_message,
    mutation_message,
    parse_mutation,
    parse_precondition,
    parse_versioned,
    precondition_message,
)
from authz.wire.filters import parse_filter
from tests.records import entities

each_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))


@each_kind
@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_what_is_sent_is_read_as_it_was(kind: Kind, data: st.DataObject) -> None:
    entity = data.draw(entities(kind))
    versioned = Versioned(entity, 7)
    assert parse_versioned(sent(entity_message(versioned))) == versioned
    for operation in (Operation.CREATE, Operation.TOUCH, Operation.DELETE):
        target = entity.key if operation is Operation.DELETE else entity
        mutation = Mutation(operation, target)
        assert parse_mutation(sent(mutation_message(mutation))) == mutation
    whole = mutation_message(Mutation(Operation.DELETE, entity))
    assert parse_mutation(whole) == Mutation(Operation.DELETE, entity.key)
    precondition = Precondition(entity.key, Expectation.AT_VERSION, 7)
    assert parse_precondition(sent(precondition_message(precondition))) == precondition


@each_kind
@settings(max_examples=30, deadline=None)
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


@each_kind
@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_a_filter_is_read_from_the_request_of_its_kind(kind: Kind, data: st.DataObject) -> None:
    entity = data.draw(entities(kind))
    message = entity_message(Versioned(entity, 0))
    request: Any = getattr(pb, f"Read{kind.plural.capitalize()}Request")()
    assert parse_filter(request) == kind.filter_type()
    wanted = {}
    for asked, field in kind.filters:
        value = getattr(entity, field.name)
        if value is None or value == "":
            continue
        wanted[asked.name] = (value,) if asked.is_many else value
        for part in request.DESCRIPTOR.fields:
            if part.name in (asked.name, f"{asked.name}_type", f"{asked.name}_id"):
                fill(request, part.name, getattr(message, field.name if asked.is_many else part.name))
    assert parse_filter(sent(request)) == kind.filter_type(**wanted)


def test_every_kind_can_be_watched() -> None:
    assert len({kind_number(kind) for kind in EntityKind}) == len(KINDS)


def sent(message: Any) -> Any:
    """The message as the other side gets it."""
    return type(message).FromString(message.SerializeToString())


def fill(message: Any, name: str, value: Any) -> None:
    """Set a field of whatever type, to one value."""
    if message.DESCRIPTOR.fields_by_name[name].is_repeated:
        getattr(message, name).append(value)
    elif hasattr(value, "SerializeToString"):
        getattr(message, name).CopyFrom(value)
    else:
        setattr(message, name, value)
