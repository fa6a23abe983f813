"""What changes between two policies besides their rows: invariants, tests and other files, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias, TypeVar

import msgspec

from authz.domain.toml import parse_toml
from authz.domain.vocabulary import join_names
from authz.policy.cases import is_case_file
from authz.policy.course import COURSE_FILE
from authz.policy.invariants import INVARIANTS_FILE
from authz.policy.load import POLICY_FILE

T = TypeVar("T")
_Invariants: TypeAlias = dict[str, dict[str, dict[str, Any]]]


class _Tests(msgspec.Struct):
    now: Any = None
    directory: Any = None
    cases: dict[str, Any] = {}


_MAX_NAMED = 5
"""Tests that a sentence names; it counts the others."""


def file_changes(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    """A sentence for each invariant, for each kind of change of the tests in a file, and for each other file.

    Comments, line endings and the order of tables play no part. Files are compared as they are written, so
    that policies with faults, or of another release, can be compared, too.
    """
    for name in sorted({*before, *after} - {POLICY_FILE, COURSE_FILE}):
        old, new = before.get(name), after.get(name)
        if old is not None and new is not None and old.splitlines() == new.splitlines():
            continue
        try:
            if name == INVARIANTS_FILE:
                yield from _invariants(_read(old, _Invariants), _read(new, _Invariants))
                continue
            if is_case_file(name):
                yield from _tests(name, _read(old, _Tests), _read(new, _Tests))
                continue
        except ValueError:
            pass  # a draft may have faults: `validate` tells them
        yield f"file `{name}` is {_what(old, new)}"


def _read(text: str | None, kind: type[T]) -> T:
    return msgspec.convert(parse_toml(text or ""), kind)


def _what(old: object, new: object) -> str:
    return "new" if old is None else "removed" if new is None else "changed"


def _invariants(before: _Invariants, after: _Invariants) -> Iterator[str]:
    for kind in dict.fromkeys([*before, *after]):
        olds, news = before.get(kind, {}), after.get(kind, {})
        for name in dict.fromkeys([*olds, *news]):
            old, new = olds.get(name), news.get(name)
            if old is None or new is None:
                says = (new or old or {}).get("says", "")
                yield f"invariant `{name}` is {_what(old, new)}: {says}"
                continue
            for field in dict.fromkeys([*old, *new]):
                if old.get(field) != new.get(field):
                    was, now = _value(old.get(field)), _value(new.get(field))
                    yield f"`{field}` of invariant `{name}`: {was} becomes {now}"


def _value(value: object) -> str:
    return "nothing" if value is None else f"`{msgspec.json.encode(value).decode()}`"


def _tests(file: str, before: _Tests, after: _Tests) -> Iterator[str]:
    olds, news = before.cases, after.cases
    kinds: dict[str, list[str]] = {}
    for name in dict.fromkeys([*olds, *news]):
        if olds.get(name) != news.get(name):
            kinds.setdefault(_what(olds.get(name), news.get(name)), []).append(name)
    for kind, names in kinds.items():
        count = f"{len(names)} tests are" if len(names) > 1 else "1 test is"
        yield f"{file}: {count} {kind}: {join_names([f'`{name}`' for name in names], _MAX_NAMED)}"
    for part in ("now", "directory"):
        if olds and news and getattr(before, part) != getattr(after, part):
            yield f"{file}: `{part}` of its tests is changed"
