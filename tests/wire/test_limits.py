"""Every list in a request has a limit, which is counted before the request is parsed."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

import authz.v1
from authz.domain.errors import ErrorReason, InvalidArgumentError
from authz.v1 import directory_pb2 as dpb
from authz.wire.limits import MAX_ITEMS, RequestLimits

FILES = [
    importlib.import_module(f"authz.v1.{module.name}")
    for module in pkgutil.iter_modules(authz.v1.__path__)
    if module.name.endswith("_pb2")
]
SERVICES = [service for file in FILES for service in file.DESCRIPTOR.services_by_name.values()]
REQUESTS = {method.input_type.name: method.input_type for service in SERVICES for method in service.methods}


def repeated_in(message: Descriptor, seen: frozenset[str] = frozenset()) -> Iterator[FieldDescriptor]:
    for field in message.fields:
        if field.is_repeated:
            yield field
        if field.message_type is not None and field.message_type.full_name not in seen:
            yield from repeated_in(field.message_type, seen | {message.full_name})


LISTS = {field.full_name: field for request in REQUESTS.values() for field in repeated_in(request)}


def test_every_list_of_every_request_has_a_limit() -> None:
    assert set(LISTS) == set(MAX_ITEMS)


def one_item(field: FieldDescriptor) -> bytes:
    """An item of a list as an empty message, an empty text or a number."""
    wire_type = 0 if field.cpp_type == FieldDescriptor.CPPTYPE_ENUM else 2
    return bytes([field.number << 3 | wire_type, 0])


@pytest.mark.parametrize(
    "field",
    [field for field in LISTS.values() if field.containing_type in REQUESTS.values()],
    ids=lambda f: f.full_name,
)
def test_a_long_list_is_refused_before_it_is_parsed(field: FieldDescriptor) -> None:
    request = REQUESTS[field.full_name.split(".")[-2]]
    limits, item = RequestLimits(request), one_item(field)
    limits.require_parsable(item * MAX_ITEMS[field.full_name])
    with pytest.raises(InvalidArgumentError) as raised:
        limits.require_parsable(item * 33_000)
    assert (raised.value.reason, raised.value.metadata["field"]) == (ErrorReason.TOO_MANY_ITEMS, field.name)
    assert str(MAX_ITEMS[field.full_name]) in raised.value.message


@pytest.mark.parametrize("request_type", [dpb.WriteRequest, dpb.ImportRequest])
def test_a_list_inside_an_item_is_counted_before_it_is_parsed(request_type: type[dpb.WriteRequest]) -> None:
    mutation = dpb.Mutation(operation=dpb.OPERATION_UPDATE)
    mutation.update_mask.paths.extend(["state"] * 100)
    limits = RequestLimits(request_type.DESCRIPTOR)
    limits.require_parsable(request_type(mutations=[mutation] * 1000).SerializeToString())
    mutation.update_mask.paths.extend([""] * 1_000_000)
    with pytest.raises(InvalidArgumentError, match="paths has more than 100 items"):
        limits.require_parsable(request_type(mutations=[mutation]).SerializeToString())


@pytest.mark.parametrize("request_type", REQUESTS.values(), ids=REQUESTS)
def test_a_request_of_many_bytes_is_refused_before_it_is_parsed(request_type: Descriptor) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        RequestLimits(request_type).require_parsable(b"\x0a" + b"\xff" * (8 << 20))
    assert raised.value.reason is ErrorReason.MALFORMED_FIELD
    assert "bytes; send fewer" in raised.value.message


@pytest.mark.parametrize(
    ("unwanted", "told"),
    [
        (b"\x78\x01", "not repeated"),  # a field that no request has, of each type; in its value, a group
        (b"\x78" + b"\xfb" * 9 + b"\x01", "not repeated"),
        (b"\x79" + b"\x7b" * 8, "not repeated"),
        (b"\x7a\x03" + b"\x7b" * 3, "not repeated"),
        (b"\x7d" + b"\x7b" * 4, "not repeated"),
        (b"\x7b\x7c", "cannot be read"),  # a group
        (b"\x80" * 20, "cannot be read"),  # a number without end
    ],
)
def test_what_is_not_of_the_request_does_not_hide_a_list(unwanted: bytes, told: str) -> None:
    with pytest.raises(InvalidArgumentError, match=told):
        RequestLimits(REQUESTS["WriteRequest"]).require_parsable(unwanted * 33_000)


def test_the_largest_write_that_makes_sense_is_parsed() -> None:
    text = "x" * 128
    mutation = dpb.Mutation(operation=dpb.OPERATION_TOUCH)
    mutation.membership.source_ref = text * 2
    mutation.membership.source = mutation.membership.role = mutation.membership.subject.id = text
    mutation.membership.scope.course_id = text
    write = dpb.WriteRequest(mutations=[mutation] * 1000, reason="\u65e5" * 1024).SerializeToString()
    RequestLimits(REQUESTS["WriteRequest"]).require_parsable(write)
