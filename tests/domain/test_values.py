"""Ids, times and tokens: parsed once, refused by name."""

from __future__ import annotations

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.domain.errors import InvalidArgumentError
from authz.domain.ids import parse_id, parse_resource_ref, parse_scope, parse_subject
from authz.domain.instants import MAX_INSTANT, MIN_INSTANT, format_instant, parse_instant, to_datetime
from authz.domain.tokens import (
    ConsistencyToken,
    PageToken,
    decode_consistency_token,
    decode_page_token,
    encode_consistency_token,
    encode_page_token,
)

ALPHABET = "ABCXYZabcxyz0189._~@+=|/:-"


@given(st.text(ALPHABET, min_size=1, max_size=128))
def test_every_id_of_the_alphabet_is_taken_as_it_is(text: str) -> None:
    assert parse_id(text, field="id") == text
    assert str(parse_subject(f"user:{text}")) == f"user:{text}"
    assert str(parse_scope(f"course:{text}")) == f"course:{text}"
    assert str(parse_resource_ref(f"notebook:{text}")) == f"notebook:{text}"


@given(st.text(min_size=1, max_size=10).filter(lambda text: not set(text) <= set(ALPHABET)))
def test_other_characters_are_refused_and_shown_in_ascii(text: str) -> None:
    try:
        parse_id(text, field="subject id")
    except InvalidArgumentError as error:
        assert error.message.startswith("subject id ")
        assert error.message.isascii()
        assert error.message.isprintable()
    else:
        assert text.isascii()


@pytest.mark.parametrize("bad", ["maya", "robot:maya", ":maya", "user:", "USER:maya", "user: maya"])
def test_a_subject_is_typed_or_refused(bad: str) -> None:
    with pytest.raises(InvalidArgumentError):
        parse_subject(bad)


@pytest.mark.parametrize("bad", ["", "course", "course:", "platform:x", "class:a", "Platform"])
def test_a_scope_is_one_of_three_or_refused(bad: str) -> None:
    with pytest.raises(InvalidArgumentError):
        parse_scope(bad)


@given(st.integers(MIN_INSTANT, MAX_INSTANT))
def test_an_instant_reads_back_as_written(instant: int) -> None:
    assert parse_instant(format_instant(instant), field="at") == instant


def test_a_date_is_its_midnight_in_utc_and_a_zone_is_honoured() -> None:
    midnight = parse_instant("2026-09-01", field="at")
    assert to_datetime(midnight) == dt.datetime(2026, 9, 1, tzinfo=dt.UTC)
    assert parse_instant("2026-09-01T02:00:00+02:00", field="at") == midnight
    with pytest.raises(InvalidArgumentError, match="at `soon`"):
        parse_instant("soon", field="at")


@given(st.text(max_size=40), st.integers(0, 2**62))
def test_a_token_reads_back_and_a_changed_one_does_not(database_id: str, revision: int) -> None:
    token = ConsistencyToken(database_id, revision)
    text = encode_consistency_token(token)
    assert decode_consistency_token(text) == token
    changed = ("A" if text[0] != "A" else "B") + text[1:]
    with pytest.raises(InvalidArgumentError):
        decode_consistency_token(changed)


@given(st.text(max_size=60))
def test_any_other_text_is_no_token(text: str) -> None:
    for decode in (decode_consistency_token, lambda t: decode_page_token(t, query="q")):
        with pytest.raises(InvalidArgumentError):
            decode(text)


def test_a_token_serves_one_purpose_and_one_query() -> None:
    page = encode_page_token(PageToken("q", ("a", "b")))
    assert decode_page_token(page, query="q").last_key == ("a", "b")
    with pytest.raises(InvalidArgumentError, match="another query"):
        decode_page_token(page, query="other")
    with pytest.raises(InvalidArgumentError):
        decode_consistency_token(page)
