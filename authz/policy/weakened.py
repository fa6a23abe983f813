"""What the invariants of a new version cover less than those of the active one: a leak may follow unseen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from string import punctuation
from urllib.parse import quote

from authz.domain.errors import ErrorReason, FailedPreconditionError, UnusablePolicyError
from authz.domain.vocabulary import Vocabulary
from authz.policy.condition import conjunction
from authz.policy.invariants import Invariant, Never

_ANYBODY = "*"
"""In place of the roles of an invariant that names none."""
_MAX_SHOWN_BYTES = 1700
"""Of the sentences in an error, as gRPC sends them: what does not fit into its status is cut off."""
_SENT_AS_IT_IS = f" {punctuation}"
"""Besides letters and digits. Of all else, gRPC sends three bytes for each."""


def weakened(
    before: Sequence[Invariant], after: Sequence[Invariant], vocabulary: Vocabulary
) -> Iterator[str]:
    """A sentence for each invariant of `before` that those of `after` together do not cover: what it lost.

    `vocabulary` is the new one: what it no longer declares is not missed.
    """
    for each in before:
        named = f"the invariant `{each.name}` of the active version ({each.says})"
        same_kind = [other for other in after if type(other) is type(each)]
        if _is_covered(each, same_kind, vocabulary):
            continue  # under other names, perhaps
        now = next((other for other in same_kind if other.name == each.name), None)
        if now is None:
            yield f"{named} is gone"
        else:
            yield f"{named} no longer covers {', '.join(_uncovered(each, now, vocabulary))}"


def require_not_weakened(
    before: Sequence[Invariant], after: Sequence[Invariant], vocabulary: Vocabulary
) -> None:
    """Raise `FailedPreconditionError` (INVARIANTS_WEAKENED) with what `weakened` finds, as far as it fits."""
    found = [*weakened(before, after, vocabulary)]
    if not found:
        return
    shown = found[:1]
    for text in found[1:]:
        if len(quote("\n".join((*shown, text)), safe=_SENT_AS_IT_IS)) > _MAX_SHOWN_BYTES:
            shown.append(f"… and {len(found) - len(shown)} more; `ValidatePolicy` warns of each")
            break
        shown.append(text)
    raise _invariants_weakened("cover less than those of the active version", *shown)


def not_comparable(error: UnusablePolicyError) -> FailedPreconditionError:
    """The error for an active version whose invariants this release does not read."""
    return _invariants_weakened("cannot be compared with those of the active version", error.message)


def _invariants_weakened(problem: str, *details: str) -> FailedPreconditionError:
    """The error for invariants that may prove less than before; `problem` continues their name."""
    text = (
        f"the invariants of the policy {problem}; restore what is lost, or publish the policy all the same"
        " with `weaken_invariants`:"
    )
    return FailedPreconditionError(ErrorReason.INVARIANTS_WEAKENED, "\n".join((text, *details)))


def _is_covered(before: Invariant, after: Sequence[Invariant], vocabulary: Vocabulary) -> bool:
    """Whether each role of the earlier invariant is, with each action, in a later one that has every case."""
    as_wide = [each for each in after if _has_every_case(before, each)]
    for type_name, action in before.cells:
        if type_name in vocabulary.types and action in vocabulary.types[type_name].actions:
            covered = (_roles(each) for each in as_wide if (type_name, action) in each.cells)
            lost = _roles(before).difference(*covered)
            if not lost.isdisjoint((_ANYBODY, *vocabulary.roles)):
                return False
    return True


def _roles(invariant: Invariant) -> frozenset[str]:
    return invariant.roles if isinstance(invariant, Never) else frozenset((_ANYBODY,))


def _has_every_case(before: Invariant, after: Invariant) -> bool:
    if not (isinstance(before, Never) and isinstance(after, Never)):
        return True
    return conjunction(before.when, after.when) == before.when


def _uncovered(before: Invariant, after: Invariant, vocabulary: Vocabulary) -> Iterator[str]:
    """What the earlier invariant covers and the later does not."""
    types = vocabulary.types
    lost: dict[str, list[str]] = defaultdict(list)
    for type_name, action in sorted(before.cells - after.cells):
        if type_name in types and action in types[type_name].actions:
            lost[type_name].append(f"`{action}`")
    yield from (f"{', '.join(actions)} on {type_name}" for type_name, actions in lost.items())
    if isinstance(before, Never) and isinstance(after, Never):
        # A role leaves an invariant also by a rank that is no longer below the one it names.
        yield from (f"`{role}`" for role in sorted(before.roles - after.roles) if role in vocabulary.roles)
        if not _has_every_case(before, after):
            yield f"every case when `{before.when}`" if before.when.named else "every case"
