"""All types that the calls of a client take, and that its questions and reads return, are exported by
`authz.client`."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

import authz.client
from authz.domain.entities import Filter
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
    if isinstance(typing.get_origin(hint), type):
        yield typing.get_origin(hint)  # type: ignore[misc]  # a class, as the line before says
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
    assert not_exported(taken) == set()


@pytest.mark.parametrize("client", [authz.client.Client, authz.client.AsyncClient])
def test_what_a_question_or_a_read_returns_is_imported_from_where_the_client_is(client: type) -> None:
    returned: set[type] = set()
    for name, method in inspect.getmembers(client, inspect.isfunction):
        hints = typing.get_type_hints(method) if not name.startswith("_") else {}
        returned |= set(classes(hints.get("return")))
    found: set[type] = set()
    while returned - found:  # with what is in their fields
        found |= returned
        ours = [each for each in found if each.__module__.startswith("authz.")]
        returned = {part for each in ours for hint in hints_of(each).values() for part in classes(hint)}
    assert not_exported(found) == set()


def hints_of(kind: type) -> dict[str, object]:
    return {} if issubclass(kind, BaseException) else typing.get_type_hints(kind)


def not_exported(types: set[type]) -> set[type]:
    """Those of the project that `authz.client` does not have. The server adds `Seen`, and each kind of record
    has a filter of its own."""
    ours = {
        each
        for each in types - {Seen, Filter}
        if each.__module__.startswith(("authz.domain", "authz.client"))
    }
    missing = {each for each in ours if each.__name__ not in authz.client.__all__}
    return {each for each in missing if each.__module__ not in _NOT_WRITTEN}


@pytest.mark.parametrize(
    "page",
    [_ROOT / "README.md", *(_ROOT / "docs").glob("*.md"), *(_ROOT / "examples").rglob("*.py")],
    ids=str,
)
def test_no_page_and_no_example_imports_from_elsewhere(page: Path) -> None:
    assert "authz.domain" not in page.read_text()
