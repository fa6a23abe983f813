"""A campus in memory: a `Snapshot` over plain entities, for tests of the checker alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from authz.domain.effective_roles import Grant, grant_of
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
    ShareLevel,
)
from authz.domain.ids import ResourceRef, Scope, ScopeKind, Subject
from authz.domain.resource_context import SCOPE_MISSING, ResourceContext, resource_context_of
from authz.domain.scope_context import ScopeContext, scope_context_of
from authz.domain.tokens import ConsistencyToken


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

    @property
    def state(self) -> ConsistencyToken:
        return ConsistencyToken("campus", self._revision)

    @property
    def token(self) -> str:
        return str(self._revision)

    def place(self, scope: Scope) -> ScopeContext | None:
        if scope.kind is ScopeKind.PLATFORM:
            return scope_context_of(None, None)
        if scope.kind is ScopeKind.COURSE:
            course = self._entities.get(CourseKey(scope.id))
            return scope_context_of(course, None) if isinstance(course, Course) else None
        session = self._entities.get(SessionKey(scope.id))
        if not isinstance(session, Session):
            return None
        if session.course_id is None:
            return scope_context_of(None, session)
        course = self._entities.get(CourseKey(session.course_id))
        return scope_context_of(course, session) if isinstance(course, Course) else None

    def resource(self, ref: ResourceRef) -> Resource | None:
        found = self._entities.get(ref)
        return found if isinstance(found, Resource) else None

    def item(self, ref: ResourceRef, subject: Subject) -> ResourceContext | None:
        resource = self.resource(ref)
        if resource is None:
            return None
        place = self.place(resource.scope)
        return SCOPE_MISSING if place is None else resource_context_of(resource, place, subject)

    def grants(self, subject: Subject, place: ScopeContext) -> tuple[Grant, ...]:
        return tuple(map(grant_of, self.memberships(subject, place.scopes)))

    def memberships(self, subject: Subject, scopes: Sequence[Scope]) -> tuple[Membership, ...]:
        """Those of the subject in any of the scopes."""
        return tuple(
            e
            for e in self._entities.values()
            if isinstance(e, Membership) and e.subject == subject and e.scope in scopes
        )

    def share(self, ref: ResourceRef, subject: Subject) -> ShareLevel | None:
        found = self._entities.get(ShareKey(ref, subject))
        return found.level if isinstance(found, Share) else None
