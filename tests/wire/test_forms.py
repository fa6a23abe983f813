"""Structs and messages with the same fields."""

from __future__ import annotations

import msgspec
import pytest

from authz.domain.exports import ExportedEntry, ExportRetention, ExportSection
from authz.domain.impact import Example, KindTotal
from authz.v1 import policy_pb2, privacy_pb2
from authz.wire.forms import Codec, Form


class Missing(msgspec.Struct):
    """Has a field that no message has."""

    section: ExportSection
    unknown: str


def test_a_value_comes_back_from_its_message() -> None:
    form = Form(ExportedEntry, privacy_pb2.ExportedEntry)
    for at in (None, 1_700_000_000_000_000):
        entry = ExportedEntry(ExportSection.HOLDS, "hold", "a lawsuit", at)
        message = form.message(entry)
        assert isinstance(message, privacy_pb2.ExportedEntry)
        assert message.HasField("at") is (at is not None)
        assert form.parse(message) == entry


def test_the_fields_of_a_struct_in_a_field_that_the_message_lacks_are_in_the_message_itself() -> None:
    fields = {field.name for field in policy_pb2.AccessTotal.DESCRIPTOR.fields}
    assert {"type", "action", "purposes", "gains", "subjects", "count"} <= fields
    form = Form(KindTotal, policy_pb2.AccessTotal)
    message = policy_pb2.AccessTotal(type="material", action="read", gains=True, subjects=3, count=4)
    total = form.parse(message)
    assert (total.kind.type, total.kind.gains, total.subjects) == ("material", True, 3)
    assert form.message(total) == message
    example = policy_pb2.AccessExample(type="material", id="m-1")
    example.scope.course_id = "algebra"
    assert str(Form(Example, policy_pb2.AccessExample).parse(example)) == "material:m-1"


def test_a_field_may_have_another_name_in_the_message_and_a_codec_of_its_own() -> None:
    shouting = Codec(str.upper, str.lower)
    form = Form(ExportRetention, privacy_pb2.ExportRetention, names={"kept": "purpose"}, without=("purpose",))
    assert form.values(
        privacy_pb2.ExportRetention(section=privacy_pb2.EXPORT_SECTION_HOLDS, purpose="a day")
    ) == {
        "section": ExportSection.HOLDS,
        "kept": "a day",
    }
    form = Form(ExportRetention, privacy_pb2.ExportRetention, kept=shouting)
    message = form.message(ExportRetention(ExportSection.HOLDS, "why", "a day"))
    assert message.kept == "A DAY"
    assert form.parse(message).kept == "a day"


def test_a_struct_with_a_field_that_the_message_lacks_has_no_form() -> None:
    with pytest.raises(TypeError, match=r"ExportRetention has no field for `unknown`"):
        Form(Missing, privacy_pb2.ExportRetention)
