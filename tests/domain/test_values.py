"""Ids, times and tokens: parsed once, refused by name."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.domain.errors import InvalidArgumentError
from authz.domain.ids import parse_id, parse_resource_ref, parse_scope, parse_subject
from authz.domain.instants import (
    DAY_US,
    MAX_INSTANT,
    MIN_INSTANT,
    format_duration,
    format_instant,
    parse_instant,
    to_datetime,
)
from authz.domain.predicates import Comparison, Operator, ResourceField
from authz.domain.tokens import KEY_BYTES, ConsistencyToken, PageToken, TokenKeys
from tests.tokens import keys_of, unsigned

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


@pytest.mark.parametrize("parse", [parse_subject, parse_scope, parse_resource_ref])
@given(st.text(max_size=4), st.text(max_size=4))
def test_the_error_of_a_malformed_name_is_one_line(
    parse: Callable[[str], object], head: str, tail: str
) -> None:
    for text in (head, f"{head}:{tail}", f"user:{tail}", f"course:{tail}"):
        try:
            parse(text)
        except InvalidArgumentError as error:
            assert error.message.isprintable(), error.message


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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-09-01Z", "2026-09-01T00:00:00Z"),
        ("2026-09-01+02:00", "2026-08-31T22:00:00Z"),
        ("2026-09-01-0500", "2026-09-01T05:00:00Z"),
        ("20260901+02", "2026-08-31T22:00:00Z"),
        ("2026-09-01", "2026-08-31T21:00:00Z"),
        ("2026-09-01 08:00", "2026-09-01T05:00:00Z"),
        ("20260901T0800", "2026-09-01T05:00:00Z"),
        ("2026-09-01t08:00:00.5Z", "2026-09-01T08:00:00.500000Z"),
        ("2026-09-01t08:00:00z", "2026-09-01T08:00:00Z"),
        ("2026-09-01 08:00z", "2026-09-01T08:00:00Z"),
        ("2026-09-01z", "2026-09-01T00:00:00Z"),
    ],
)
def test_an_offset_of_a_date_is_no_time_of_the_day(text: str, expected: str) -> None:
    zone = dt.timezone(dt.timedelta(hours=3))
    assert format_instant(parse_instant(text, field="at", zone=zone)) == expected


@pytest.mark.parametrize(
    "bad", ["2026-09-01x08:00", "2026-09-01+25:00", "2026-09-01T", "2026-09-01+2", "2026-W36-2"]
)
def test_a_time_of_another_form_is_refused(bad: str) -> None:
    with pytest.raises(InvalidArgumentError, match="is not a time; write it like"):
        parse_instant(bad, field="at")


def test_a_length_of_time_is_told_in_seconds_with_all_its_digits() -> None:
    lengths = {30 * DAY_US: "2592000 s", 1_234_567_000_000: "1234567 s", 100: "0.0001 s", 0: "0 s"}
    assert {length: format_duration(length) for length in lengths} == lengths
    within = Comparison(ResourceField.CREATED_AT, Operator.MORE_THAN, from_now_us=-30 * DAY_US)
    assert str(within) == "created_at > now - 2592000 s"


KEYS = keys_of("d")


@given(st.integers(0, 2**62), st.integers(0, 3))
def test_a_token_opens_and_a_changed_one_does_not(revision: int, place: int) -> None:
    token = ConsistencyToken("d", revision)
    text = KEYS.sign(token)
    assert KEYS.verify(text) == token
    for at in (place, -2 - place):
        changed = bytearray(text, "ascii")
        changed[at] = ord("A") if changed[at] != ord("A") else ord("Q")
        with pytest.raises(InvalidArgumentError):
            KEYS.verify(changed.decode())


@given(st.text(max_size=60))
def test_any_other_text_is_no_token(text: str) -> None:
    for open_text in (KEYS.verify, lambda t: KEYS.verify_page("d", t, query="q")):
        with pytest.raises(InvalidArgumentError):
            open_text(text)


def test_a_token_of_another_key_is_no_token() -> None:
    others = TokenKeys()
    others.add("d", b"k" * KEY_BYTES)
    token = ConsistencyToken("d", 1)
    for text in (others.sign(token), unsigned(token)):
        with pytest.raises(InvalidArgumentError):
            KEYS.verify(text)


@pytest.mark.parametrize("key", [b"", b"short", b"k" * 64])
def test_a_key_of_another_length_is_refused(key: bytes) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        TokenKeys().add("d", key)


def test_a_token_serves_one_purpose_and_one_query() -> None:
    page = KEYS.sign_page("d", PageToken("q", ("a", "b")))
    assert KEYS.verify_page("d", page, query="q").last_key == ("a", "b")
    with pytest.raises(InvalidArgumentError, match="another query"):
        KEYS.verify_page("d", page, query="other")
    with pytest.raises(InvalidArgumentError):
        KEYS.verify(page)
