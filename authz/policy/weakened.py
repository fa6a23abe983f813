"""Warnings for invariants that prove less than those of the active version: a leak may follow unseen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from authz.domain.errors import PolicyWarning
from authz.domain.vocabulary import Vocabulary
from authz.policy.condition import conjunction
from authz.policy.invariants import INVARIANTS_FILE, Invariant, Never


def weakened(
    before: Sequence[Invariant], after: Sequence[Invariant], vocabulary: Vocabulary
) -> Iterator[PolicyWarning]:
    """One warning for each invariant that is gone, or that covers less.

    `vocabulary` is the new one: what it no longer declares is not missed.
    """
    kept = {(type(each), each.name): each for each in after}
    for each in before:
        now = kept.get((type(each), each.name))
        if now is None:
            text = (
                f"the invariant `{each.name}` of the active version is gone, so nothing proves any more that"
                f" {each.says}; put it back, or replace it"
            )
            yield PolicyWarning(INVARIANTS_FILE, text)
        elif lost := ", ".join(_uncovered(each, now, vocabulary)):
            text = (
                f"the invariant `{each.name}` ({each.says}) no longer covers {lost}, as in the active"
                " version; undo that, or add an invariant that does"
            )
            yield PolicyWarning(INVARIANTS_FILE, text)


def _uncovered(before: Invariant, after: Invariant, vocabulary: Vocabulary) -> Iterator[str]:
    """What the earlier invariant covers and the later does not."""
    types = vocabulary.types
    for type_name, action in sorted(before.cells - after.cells):
        if type_name in types and action in types[type_name].actions:
            yield f"`{action}` on {type_name}"
    if isinstance(before, Never) and isinstance(after, Never):
        # A role leaves an invariant also by a rank that is no longer below the one it names.
        yield from (f"`{role}`" for role in sorted(before.roles - after.roles) if role in vocabulary.roles)
        if conjunction(before.when, after.when) != before.when:
            yield f"every case when `{before.when}`" if before.when.named else "every case"
