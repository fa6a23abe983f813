"""The active versions: which names a write may use by the platform's, and what courses have of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, and_, exists, select

from authz.domain.entities import (
    PLATFORM_ACTIVATION,
    Entity,
    Key,
    PolicyVersion,
    PolicyVersionKey,
    Versioned,
    kind_of,
)
from authz.domain.errors import ConflictError, ErrorReason, InvalidArgumentError, UnusablePolicyError
from authz.domain.ids import ScopeKind
from authz.domain.ports import Vocabularies
from authz.domain.vocabulary import Vocabulary
from authz.store.rows import ENTITY_ROWS

_NO_NAMES = Vocabulary({}, {})
_ACTIVATIONS, _VERSIONS, _COURSES = (
    ENTITY_ROWS[name].table for name in ("policy_activation", "policy_version", "course")
)
_IS_OF_COURSE = _ACTIVATIONS.c.scope_kind == ScopeKind.COURSE.value


def read_course_policies(
    connection: Connection, *, since: int, after: str, limit: int
) -> tuple[PolicyVersion, ...]:
    """See `SqlDirectory.course_policies`. Of a course that is gone, nothing is read."""
    same = [_VERSIONS.c[name] == _ACTIVATIONS.c[name] for name in ("scope_kind", "scope_id", "number")]
    statement = (
        select(_VERSIONS)
        .join(_ACTIVATIONS, and_(*same))
        .join(_COURSES, _COURSES.c.id == _ACTIVATIONS.c.scope_id)
        .where(_IS_OF_COURSE, _ACTIVATIONS.c.revision > since, _ACTIVATIONS.c.scope_id > after)
        .order_by(_ACTIVATIONS.c.scope_id)
        .limit(limit)
    )
    stored = ENTITY_ROWS["policy_version"]
    return tuple(found.entity for found in stored.versioned(connection.execute(statement).all()))


def require_no_course_policy_since(connection: Connection, revision: int) -> None:
    """Raise `ConflictError` if the policy of a course was activated after a revision."""
    later = exists().where(_IS_OF_COURSE, _ACTIVATIONS.c.revision > revision)
    if connection.execute(select(later)).scalar():
        raise ConflictError("the policy of a course was activated at the same time; try again")


def validate_by_policy(
    entity: Entity,
    vocabularies: Vocabularies,
    find: Callable[[Key], Versioned[Entity] | None],
    *,
    is_new: bool = True,
) -> None:
    """Raise `InvalidArgumentError` for a well-formed entity that is not valid, also by the version that is
    active; `find` reads records.

    A membership that is not new may have a role that is no longer declared. So its subject can be suspended,
    and a roster can end it: the role comes back with a version that declares it.
    """
    kind = kind_of(entity)
    vocabulary = active_vocabulary(vocabularies, find) if kind.uses_vocabulary else _NO_NAMES
    try:
        kind.validate_rule(entity, vocabulary)
    except InvalidArgumentError as error:
        if is_new or error.reason is not ErrorReason.UNKNOWN_ROLE:
            raise


def active_vocabulary(
    vocabularies: Vocabularies, find: Callable[[Key], Versioned[Entity] | None]
) -> Vocabulary:
    """The vocabulary of the version that is active; `find` reads records. Raises as `Vocabularies`."""
    found = find(PLATFORM_ACTIVATION)
    active: Any = None if found is None else found.entity

    def read() -> PolicyVersion:
        version = None if active is None else find(PolicyVersionKey(active.scope, active.number))
        if version is None or not isinstance(version.entity, PolicyVersion):
            raise UnusablePolicyError("the database has no files of the active version of the policy")
        return version.entity

    return vocabularies(active, read)
