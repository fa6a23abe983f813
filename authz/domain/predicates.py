"""Conditions on the fields of a resource, as data: a plan uses them in place of a list of ids.

They are in negation normal form: only a comparison is negated. A comparison with a value that is absent does
not hold, so its negation does.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import TypeAlias

import msgspec

from authz.domain.instants import format_duration


class ResourceField(StrEnum):
    """The fields that a comparison may be about. `share_level` is that of a share with the subject."""

    OWNER = "owner"
    SHARE_LEVEL = "share_level"
    VISIBILITY = "visibility"
    PUBLISHED = "published"
    AVAILABLE_FROM = "available_from"
    AVAILABLE_UNTIL = "available_until"
    CREATED_AT = "created_at"
    LOCKED = "locked"
    AI_ALLOWED = "ai_allowed"


class Operator(StrEnum):
    """How a field is compared. `ABSENT` takes no value; the times are relative to now."""

    EQUALS = "EQUALS"
    ABSENT = "ABSENT"
    AT_MOST = "AT_MOST"
    MORE_THAN = "MORE_THAN"


class Comparison(msgspec.Struct, frozen=True, tag="comparison"):
    """A field compared with a value, text or a flag, or a time compared with `from_now_us` after now."""

    field: ResourceField
    operator: Operator
    value: str | bool | None = None
    from_now_us: int | None = None
    negated: bool = False

    def __str__(self) -> str:
        if self.value is True:
            return f"not {self.field}" if self.negated else str(self.field)
        text = f"{self.field} {_SIGNS[self.operator]}{self._value()}"
        return f"not ({text})" if self.negated else text

    def _value(self) -> str:
        if self.from_now_us is not None:
            sign, length = "-" if self.from_now_us < 0 else "+", format_duration(abs(self.from_now_us))
            return f" now {sign} {length}" if self.from_now_us else " now"
        return (
            "" if self.value is None else f" {str(self.value).lower() if self.value is False else self.value}"
        )


class AllOf(msgspec.Struct, frozen=True, tag="all_of"):
    """True if every part is true."""

    parts: tuple[Predicate, ...]

    def __str__(self) -> str:
        return " and ".join(f"({each})" if isinstance(each, AnyOf) else str(each) for each in self.parts)


class AnyOf(msgspec.Struct, frozen=True, tag="any_of"):
    """True if any part is true."""

    parts: tuple[Predicate, ...]

    def __str__(self) -> str:
        return " or ".join(f"({each})" if isinstance(each, AllOf) else str(each) for each in self.parts)


Predicate: TypeAlias = Comparison | AllOf | AnyOf

_SIGNS = {Operator.EQUALS: "=", Operator.ABSENT: "is absent", Operator.AT_MOST: "<=", Operator.MORE_THAN: ">"}


def all_of(parts: Iterable[Predicate]) -> Predicate:
    """The conjunction of one or more parts, itself not nested."""
    flat = tuple(dict.fromkeys(inner for p in parts for inner in (p.parts if isinstance(p, AllOf) else (p,))))
    return flat[0] if len(flat) == 1 else AllOf(flat)


def any_of(parts: Iterable[Predicate]) -> Predicate:
    """The disjunction of one or more parts, itself not nested."""
    flat = tuple(dict.fromkeys(inner for p in parts for inner in (p.parts if isinstance(p, AnyOf) else (p,))))
    return flat[0] if len(flat) == 1 else AnyOf(flat)


def negation(predicate: Predicate) -> Predicate:
    """The negation of a predicate."""
    if isinstance(predicate, Comparison):
        return msgspec.structs.replace(predicate, negated=not predicate.negated)
    return (any_of if isinstance(predicate, AllOf) else all_of)(map(negation, predicate.parts))
