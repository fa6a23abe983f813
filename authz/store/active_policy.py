"""Which names a write may use: those of the version of the policy that is active in its transaction."""

from __future__ import annotations

from collections.abc import Callable

from authz.domain.entities import (
    PLATFORM_ACTIVATION,
    Entity,
    Key,
    PolicyActivation,
    PolicyVersion,
    PolicyVersionKey,
    Versioned,
    kind_of,
)
from authz.domain.errors import UnusablePolicyError
from authz.domain.mutations import Mutation, Operation
from authz.domain.ports import Vocabularies
from authz.domain.vocabulary import Vocabulary

_NO_NAMES = Vocabulary({}, {})


def vocabulary_for(
    mutation: Mutation, vocabularies: Vocabularies, find: Callable[[Key], Versioned[Entity] | None]
) -> Vocabulary:
    """The vocabulary that a mutation is validated by, if it needs one; `find` reads records."""
    if mutation.operation is Operation.DELETE or not kind_of(mutation.target).uses_vocabulary:
        return _NO_NAMES
    found = find(PLATFORM_ACTIVATION)
    if found is None:
        active = None
    else:
        assert isinstance(found.entity, PolicyActivation)  # noqa: S101  found by its key; narrows the type
        active = found.entity

    def read() -> PolicyVersion:
        version = None if active is None else find(PolicyVersionKey(active.scope, active.number))
        if version is None or not isinstance(version.entity, PolicyVersion):
            raise UnusablePolicyError("the database has no files of the active version of the policy")
        return version.entity

    return vocabularies(active, read)
