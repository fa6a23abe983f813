"""A name in a text is found wherever it stands, and nobody else is taken for the person."""

from __future__ import annotations

import msgspec
import pytest

from authz.domain.ids import parse_subject
from authz.domain.mentions import mentions, subjects_in_texts, without_mentions, without_people

MAYA = parse_subject("user:maya")
NAMING = [
    "user:maya",
    "as user:maya asked",
    "(user:maya)",
    "asked user:maya.",
    "asked user:maya...",
    "asked user:maya, twice",
    "service:x for user:maya",
    'subject = "user:maya"',
    "owners:\nuser:maya",
    "owners:\r\n\tuser:maya",
    "owners:\x1fuser:maya",
    "لuser:maya",
    "由user:maya提出",
]
OTHERS = [
    "maya",
    "superuser:maya",
    "user:maya2",
    "user:maya.2",
    "user:maya..2",
    "user:maya-khan",
    "user:a/user:maya",
]


def as_json(text: str) -> str:
    """As records, logs and the files of a policy have it."""
    return msgspec.json.encode(text).decode()


@pytest.mark.parametrize("text", [*NAMING, *map(as_json, NAMING)])
def test_a_name_is_found_and_replaced_in_a_text_and_in_json(text: str) -> None:
    assert mentions(text, MAYA)
    assert MAYA in subjects_in_texts([text])
    assert without_mentions(text, MAYA, "user:erased-1") == text.replace("user:maya", "user:erased-1")
    assert b"maya" not in without_people(text.encode())


@pytest.mark.parametrize("text", [*OTHERS, *map(as_json, OTHERS)])
def test_the_name_of_somebody_else_is_not_that_of_the_person(text: str) -> None:
    assert not mentions(text, MAYA)
    assert without_mentions(text, MAYA, "user:erased-1") == text


@pytest.mark.parametrize("name", ["user:maya", "user:maya.", "user:maya..", "user:.", "service:x"])
@pytest.mark.parametrize("text", ["{}", "{}.", "asked {}...", "{}, twice"])
def test_a_full_stop_may_end_an_id_or_a_sentence(name: str, text: str) -> None:
    subject, text = parse_subject(name), text.format(name)
    assert mentions(text, subject)
    found = subjects_in_texts([text])
    assert subject in found
    assert all(each.id and str(each) in text for each in found)
