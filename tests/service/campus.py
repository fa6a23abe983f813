"""A campus in memory: a `Snapshot` over plain entities, for tests of the checker alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from authz.domain.entities import (
    Course,
    CourseKey,
    Entity,
    Key,
    Membership,
    Resource,
    Session,
    SessionKey,
    Share,
    ShareKey,
)
from authz.domain.ids import ResourceRef, Scope, Subject


class Campus:
    """A `Snapshot` of given entities."""

    def __init__(self, entities: Iterable[Entity], revision: int = 1) -> None:
        self._entities: dict[Key, Entity] = {entity.key: entity for entity in entities}
        self._revision = revision

    @property
    def entities(self) -> tuple[Entity, ...]:
        return tuple(self._entities.values())

    @property
    def revision(self) -> int:
        return self._revision

    def course(self, course_id: str) -> Course | None:
        found = self._entities.get(CourseKey(course_id))
        return found if isinstance(found, Course) else None

    def session(self, session_id: str) -> Session | None:
        found = self._entities.get(SessionKey(session_id))
        return found if isinstance(found, Session) else None

    def resource(self, ref: ResourceRef) -> Resource | None:
        found = self._entities.get(ref)
        return found if isinstance(found, Resource) else None

    def memberships(self, subject: Subject, scopes: Sequence[Scope]) -> tuple[Membership, ...]:
        return tuple(
            e
            for e in self._entities.values()
            if isinstance(e, Membership) and e.subject == subject and e.scope in scopes
        )

    def share(self, ref: ResourceRef, subject: Subject) -> Share | None:
        found = self._entities.get(ShareKey(ref, subject))
        return found if isinstance(found, Share) else None
