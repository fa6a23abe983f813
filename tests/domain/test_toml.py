"""TOML of others is read, or a `ValueError`: no text of any depth ends in another error."""

from __future__ import annotations

import subprocess
import sys

import pytest

from authz.domain.toml import parse_toml


def test_tables_are_read() -> None:
    assert parse_toml('[a.b]\nc = [{ d = "e" }]') == {"a": {"b": {"c": [{"d": "e"}]}}}


@pytest.mark.parametrize(
    "text",
    [
        "= 1",
        "a = " + "9" * 5000,
        "a = 0x" + "f" * 5000,
        "a = [{ b = 9223372036854775808 }]",
        "a = " + "[" * 5000,
        "a = " + "[" * 100 + "]" * 100,
        "a = " + "{a = " * 5000,
        "a." * 5000 + "a = 1",
        "[" + "a." * 5000 + "a]",
        'a = "' + r"\"" * 500_000,
    ],
    ids=lambda text: text[:8],
)
def test_any_other_text_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        parse_toml(text)


@pytest.mark.parametrize("part", ["a", '"a b"', "'a'", r'"\""'])
@pytest.mark.parametrize("form", ["{} = 1", "[{}]", "a = {{ {} = 1 }}"])
def test_a_key_of_many_parts_takes_little_memory(part: str, form: str) -> None:
    text = form.format(" . ".join([part] * 20_000))
    program = (
        "import resource, sys; from authz.domain.toml import parse_toml;"
        "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30));"
        "\ntry: parse_toml(sys.stdin.read())"
        "\nexcept ValueError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "its values are nested more than 32 deep\n"), done.stderr


def test_a_key_may_have_as_many_parts_as_tables_may_be_deep() -> None:
    assert list(parse_toml(".".join(["a"] * 32) + " = 1")) == ["a"]


def test_no_key_begins_at_an_escaped_quote() -> None:
    text = r"\"a" + '".' + ".".join(["a"] * 32)
    assert parse_toml(f"a = '{text}'") == {"a": text}
