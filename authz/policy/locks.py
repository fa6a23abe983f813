"""The `lock` rows of a policy: what no course's own policy may have a rule about."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import msgspec

from authz.domain.decisions import Rule
from authz.domain.vocabulary import Vocabulary
from authz.policy.declarations import has_fields
from authz.policy.rows import Faults, Row
from authz.policy.rules import check_target, targets_of


class Lock(msgspec.Struct, frozen=True):
    """A role (with all that inherit it), a type and an action, each maybe `*`, and the place of its row."""

    role: str
    type: str
    action: str
    source: str

    def __str__(self) -> str:
        return f"lock, {self.role}, {self.type}, {self.action}"


def read_locks(rows: list[Row], vocabulary: Vocabulary, faults: Faults) -> tuple[Lock, ...]:
    """The locks in order."""
    locks: dict[tuple[str, ...], Lock] = {}
    for row in rows:
        if row.kind != "lock" or not has_fields(row, ("role", "type", "action"), faults):
            continue
        check_target(row, (1, 2, 3), vocabulary, faults)
        role, type_name, action = row.texts
        lock = Lock(role, type_name, action, f"{row.file}:{row.line}")
        first = locks.setdefault(row.texts, lock)
        if first is not lock:
            faults.at(row, 0, f"repeats {first.source}; remove one of the two")
    return tuple(locks.values())


def cells_of(
    row: Rule | Lock, vocabulary: Vocabulary, inheritors: tuple[str, ...]
) -> Iterator[tuple[str, str, str]]:
    """Every role, type and action that a row names; `inheritors` are those of its role."""
    for role, (type_name, action) in product(inheritors, targets_of(row.type, row.action, vocabulary)):
        yield role, type_name, action
