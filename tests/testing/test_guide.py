"""What docs/testing.md shows runs as pasted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

pytest_plugins = ("pytester",)

PAGE = Path(__file__).parents[2] / "docs/testing.md"


def test_the_example_passes_as_pasted(pytester: pytest.Pytester) -> None:
    blocks = re.findall(
        r"^```(?:toml|python)\n# (\S+)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    assert [name for name, _ in blocks] == [
        "campus.toml",
        "pyproject.toml",
        "test_access.py",
        "test_application.py",
    ]
    for name, text in blocks:
        (pytester.path / name).write_text(text)
    pytester.runpytest_inprocess().assert_outcomes(passed=4)
