"""All types that the calls of a client take are exported by `authz.client`."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

import authz.client
from authz.domain.kinds import erasure, hold, policy, restriction, retention_rule
from authz.domain.mutations import Seen

_CLIENTS = [each for name, each in vars(authz.client).items() if name.endswith("Client")]
_NOT_WRITTEN = {each.__name__ for each in (erasure, hold, policy, restriction, retention_rule)}
"""The kinds of records that `Write` does not take: other calls make them."""
_ROOT = Path(__file__).parent.parent.parent


def classes(hint: object) -> Iterator[type]:
    """The classes in a type hint."""
    if isinstance(hint, type):
        yield hint
    for part in hint if isinstance(hint, list) else typing.get_args(hint):
        yield from classes(part)


@pytest.mark.parametrize("client", _CLIENTS)
def test_what_a_call_takes_is_imported_from_where_the_client_is(client: type) -> None:
    taken: set[type] = set()
    for name, method in inspect.getmembers(client, inspect.isfunction):
        hints = typing.get_type_hints(method) if not name.startswith("_") else {}
        for argument, hint in hints.items():
            taken |= set(classes(hint)) if argument != "return" else set()
    # What its fields need: the kind of a scope, the state of a course.
    for each in [*taken]:
        taken |= {part for hint in typing.get_type_hints(each).values() for part in classes(hint)}
    taken.discard(Seen)  # the server adds it
    ours = {each for each in taken if each.__module__.startswith("authz.domain")}
    missing = {each for each in ours if each.__name__ not in authz.client.__all__}
    assert {each for each in missing if each.__module__ not in _NOT_WRITTEN} == set()


@pytest.mark.parametrize(
    "page",
    [_ROOT / "README.md", *(_ROOT / "docs").glob("*.md"), *(_ROOT / "examples").rglob("*.py")],
    ids=str,
)
def test_no_page_and_no_example_imports_from_elsewhere(page: Path) -> None:
    assert "from authz.domain" not in page.read_text()
