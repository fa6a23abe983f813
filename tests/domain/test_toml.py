"""TOML of others is read, or a `ValueError`: no text of any depth ends in another error."""

from __future__ import annotations

import pytest

from authz.domain.toml import parse_toml


def test_tables_are_read() -> None:
    assert parse_toml('[a.b]\nc = [{ d = "e" }]') == {"a": {"b": {"c": [{"d": "e"}]}}}


@pytest.mark.parametrize(
    "text",
    [
        "= 1",
        "a = " + "9" * 5000,
        "a = " + "[" * 5000,
        "a = " + "[" * 100 + "]" * 100,
        "a = " + "{a = " * 5000,
        "a." * 5000 + "a = 1",
        "[" + "a." * 5000 + "a]",
    ],
    ids=lambda text: text[:8],
)
def test_any_other_text_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        parse_toml(text)
