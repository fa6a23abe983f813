"""A registered resource: its visibilities, filter and rules. Its key is a `ResourceRef`."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from authz.domain.errors import ErrorReason, InvalidArgumentError, malformed
from authz.domain.ids import ResourceRef, Scope, ScopeKind, Subject
from authz.domain.instants import Instant
from authz.domain.kinds.course import Course
from authz.domain.kinds.fields import Id, TypeName, validate_span
from authz.domain.kinds.kind import Container, Filter, Kind
from authz.domain.kinds.session import IN_SCOPE, Session
from authz.domain.vocabulary import API_TYPE, Vocabulary

_RECORD_TYPES = ("course", "session")


class Visibility(StrEnum):
    """To whom, of those with a role, a resource is open beyond its owner and shares."""

    PRIVATE = "PRIVATE"
    SESSION = "SESSION"
    COURSE = "COURSE"


class Resource(msgspec.Struct, frozen=True, gc=False, tag_field="kind", tag="resource"):
    """A piece of content. Its scope never changes. Without an owner it is nobody's."""

    type: TypeName
    id: Id
    scope: Scope
    owner: Subject | None = None
    visibility: Visibility = Visibility.PRIVATE
    published: bool = False
    available_from: Instant | None = None
    available_until: Instant | None = None
    created_at: Instant | None = None
    locked: bool = False
    ai_allowed: bool = False

    @property
    def key(self) -> ResourceRef:
        """Its identity."""
        return ResourceRef(self.type, self.id)


class ResourceFilter(Filter[Resource], frozen=True, kw_only=True):
    """Resources by type, ids (with a type), scope, owner."""

    type: TypeName | None = None
    ids: tuple[Id, ...] = ()
    scope: Scope | None = None
    owner: Subject | None = None

    def __post_init__(self) -> None:
        if self.ids and not self.type:
            raise malformed("ids", "needs a type: an id is unique only within its type")


def require_content(type_name: str, vocabulary: Vocabulary, *, of_record: str) -> None:
    """Raise `InvalidArgumentError` (UNKNOWN_TYPE) unless a resource can have the type.

    `of_record` is what to say of a course or a session, with `{}` in place of the type.
    """
    vocabulary.require_type(type_name, refused=(API_TYPE, *_RECORD_TYPES))
    problem = ""
    if type_name == API_TYPE:
        problem = f"`{API_TYPE}` is the type of the API itself; a resource has another one"
    elif type_name in _RECORD_TYPES:
        problem = of_record.format(type_name, type_name)
    if problem:
        raise InvalidArgumentError(ErrorReason.UNKNOWN_TYPE, problem, type=type_name)


def _validate(resource: Resource, vocabulary: Vocabulary) -> None:
    require_content(
        resource.type, vocabulary, of_record="a {} is not registered as a resource; write it as a {}"
    )
    if resource.scope.kind is ScopeKind.PLATFORM:
        raise malformed("scope", "is platform; a resource belongs to a course or a session")
    if resource.visibility is Visibility.SESSION and resource.scope.kind is not ScopeKind.SESSION:
        raise malformed("visibility", "is SESSION outside a session; use PRIVATE or COURSE")
    validate_span(
        resource.available_from, resource.available_until, names=("available_from", "available_until")
    )


def _validate_container(resource: Resource, container: Course | Session) -> None:
    is_alone = isinstance(container, Session) and container.course_id is None
    if is_alone and resource.visibility is Visibility.COURSE:
        problem = f"is COURSE, but {resource.scope} belongs to no course; use SESSION"
        raise malformed("resource.visibility", problem)


def _itself(ref: ResourceRef) -> ResourceRef:
    return ref


RESOURCE = Kind(
    Resource,
    ResourceRef,
    ResourceFilter,
    key_order=("type", "id"),
    container=IN_SCOPE,
    lookups=("scope", "owner"),
    rule=_validate,
    container_rule=_validate_container,
)

IN_RESOURCE = Container("resource", kinds=("resource",), key_of=_itself, value_of=_itself)
"""The container of what belongs to a resource."""
