"""Whether one mutation makes sense by itself, before anything stored is looked at."""

from __future__ import annotations

from authz.domain.entities import (
    Course,
    CourseKey,
    Entity,
    Key,
    Membership,
    MembershipKey,
    Resource,
    Session,
    SessionKey,
    Share,
    ShareKey,
    Visibility,
)
from authz.domain.errors import ErrorReason, InvalidArgumentError
from authz.domain.ids import ResourceRef, Scope, ScopeKind, parse_id
from authz.domain.instants import MAX_INSTANT, MIN_INSTANT, US_PER_S, Instant
from authz.domain.mutations import Mutation, Operation
from authz.domain.vocabulary import Vocabulary

MAX_SOURCE_LENGTH = 128
MAX_SOURCE_REF_LENGTH = 256
MAX_EDIT_WINDOW_US = 366 * 86_400 * US_PER_S

_ENTITY_TYPES = ("course", "session")


def validate_mutation(mutation: Mutation, vocabulary: Vocabulary) -> None:
    """Raises `InvalidArgumentError` that names the field at fault.

    A DELETE is held to well-formed ids only, so that what a policy no longer declares can go.
    """
    validate_key(mutation.key)
    if mutation.operation is Operation.DELETE:
        return
    if isinstance(mutation.target, CourseKey | SessionKey | MembershipKey | ResourceRef | ShareKey):
        raise InvalidArgumentError(
            ErrorReason.MISSING_FIELD,
            f"{mutation.operation.value.lower()} of {mutation.key} carries a key; send the whole entity",
        )
    validate_entity(mutation.target, vocabulary)


def validate_key(key: Key) -> None:
    """Raises `InvalidArgumentError` (MALFORMED_ID) for an id that cannot be."""
    if isinstance(key, CourseKey):
        parse_id(key.id, field="course id")
    elif isinstance(key, SessionKey):
        parse_id(key.id, field="session id")
    elif isinstance(key, ResourceRef):
        _validate_ref(key)
    elif isinstance(key, MembershipKey):
        parse_id(key.subject.id, field="subject id")
        parse_id(key.role, field="role")
        _validate_scope(key.scope)
    else:
        _validate_ref(key.resource)
        parse_id(key.subject.id, field="subject id")


def validate_entity(entity: Entity, vocabulary: Vocabulary) -> None:
    """Raises `InvalidArgumentError` for an entity that no directory could hold; ids are not looked at."""
    if isinstance(entity, Course):
        _validate_course(entity)
    elif isinstance(entity, Session):
        _validate_session(entity)
    elif isinstance(entity, Membership):
        _validate_membership(entity, vocabulary)
    elif isinstance(entity, Resource):
        _validate_resource(entity, vocabulary)
    elif isinstance(entity, Share):
        vocabulary.require_type(entity.resource.type)


def validate_text(text: str, *, field: str, max_length: int) -> None:
    """Raises `InvalidArgumentError` (MALFORMED_FIELD) for text that is too long or cannot be stored."""
    if len(text) > max_length:
        raise _malformed(field, f"has {len(text)} characters; at most {max_length} are kept")
    if "\x00" in text or (not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text)):
        raise _malformed(field, "has a character that is no text; leave out NUL and lone surrogates")


def _validate_ref(ref: ResourceRef) -> None:
    parse_id(ref.type, field="resource type")
    parse_id(ref.id, field="resource id")


def _validate_scope(scope: Scope) -> None:
    if scope.kind is not ScopeKind.PLATFORM:
        parse_id(scope.id, field=f"{scope.kind.value} id")
    elif scope.id:
        raise InvalidArgumentError(
            ErrorReason.MALFORMED_ID, "the scope platform has no id; leave it empty", field="scope"
        )


def _validate_course(course: Course) -> None:
    if not 0 <= course.edit_window_us <= MAX_EDIT_WINDOW_US:
        raise _malformed("edit_window", "is out of range; it must be 0 to 366 days")


def _validate_session(session: Session) -> None:
    if session.course_id is not None:
        parse_id(session.course_id, field="course id")
    _validate_span(session.starts_at, session.ends_at, names=("starts_at", "ends_at"))


def _validate_membership(membership: Membership, vocabulary: Vocabulary) -> None:
    vocabulary.require_role(membership.role, membership.scope.kind)
    _validate_span(membership.starts_at, membership.ends_at, names=("starts_at", "ends_at"))
    validate_text(membership.source, field="source", max_length=MAX_SOURCE_LENGTH)
    validate_text(membership.source_ref, field="source_ref", max_length=MAX_SOURCE_REF_LENGTH)


def _validate_resource(resource: Resource, vocabulary: Vocabulary) -> None:
    vocabulary.require_type(resource.type)
    if resource.type in _ENTITY_TYPES:
        raise InvalidArgumentError(
            ErrorReason.UNKNOWN_TYPE,
            f"a {resource.type} is not registered as a resource; write it as a {resource.type}",
            type=resource.type,
        )
    _validate_scope(resource.scope)
    if resource.scope.kind is ScopeKind.PLATFORM:
        raise _malformed("scope", "is platform; a resource belongs to a course or a session")
    if resource.owner is not None:
        parse_id(resource.owner.id, field="owner id")
    if resource.visibility is Visibility.SESSION and resource.scope.kind is not ScopeKind.SESSION:
        raise _malformed("visibility", "is SESSION outside a session; use PRIVATE or COURSE")
    _validate_span(
        resource.available_from, resource.available_until, names=("available_from", "available_until")
    )
    _validate_instant(resource.created_at, name="created_at")


def _validate_span(start: Instant | None, end: Instant | None, *, names: tuple[str, str]) -> None:
    _validate_instant(start, name=names[0])
    _validate_instant(end, name=names[1])
    if start is not None and end is not None and start >= end:
        raise _malformed(names[1], f"is not after {names[0]}; give a later time")


def _validate_instant(instant: Instant | None, *, name: str) -> None:
    if instant is not None and not MIN_INSTANT <= instant <= MAX_INSTANT:
        raise _malformed(name, "is out of range; it must be in the years 1 to 9999")


def _malformed(field: str, problem: str) -> InvalidArgumentError:
    return InvalidArgumentError(ErrorReason.MALFORMED_FIELD, f"{field} {problem}", field=field)
