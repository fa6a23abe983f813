"""Warns of writes that reset more of a record than they say."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import msgspec

from authz.domain.entities import kind_of
from authz.domain.mutations import Mutation, Operation

_TO_CALLER_OF_WRITE = 3


class BareTouchWarning(UserWarning):
    """A TOUCH gives only the identifying fields.

    If the record exists, all its other fields go back to their defaults: a course becomes a draft, a
    suspended membership becomes active.
    """


def warn_of_bare_touches(mutations: Iterable[Mutation]) -> None:
    """Warn the caller of the caller of the first TOUCH whose other fields all have their defaults."""
    for mutation in mutations:
        reset = _reset_fields(mutation)
        if reset:
            # Without the id: Python shows a text once for each line of a program.
            kind = kind_of(mutation.target).name
            warnings.warn(
                f"touch of kind `{kind}` gives none of {', '.join(reset)}: in a record that exists, they go"
                " back to their defaults; use `update` to change some fields, or CREATE for a new record",
                BareTouchWarning,
                stacklevel=_TO_CALLER_OF_WRITE,
            )
            return


def _reset_fields(mutation: Mutation) -> list[str]:
    if mutation.operation is not Operation.TOUCH:
        return []
    fields = kind_of(mutation.target).updatable.values()
    is_bare = all(getattr(mutation.target, field.name) == field.default for field in fields)
    return [field.name for field in fields if field.default is not msgspec.NODEFAULT] if is_bare else []
