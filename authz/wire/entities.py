"""Entities, keys and mutations between protobuf and the domain."""

from __future__ import annotations

from functools import singledispatch

from authz.domain.entities import (
    DEFAULT_EDIT_WINDOW_US,
    Course,
    CourseKey,
    CourseState,
    Entity,
    Key,
    Membership,
    MembershipKey,
    MembershipStatus,
    Resource,
    Session,
    SessionKey,
    SessionState,
    Share,
    ShareKey,
    ShareLevel,
    Versioned,
    Visibility,
    kind_of,
)
from authz.domain.ids import ResourceRef, is_name, parse_id
from authz.domain.instants import US_PER_S
from authz.domain.mutations import Expectation, Mutation, Operation, Precondition
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from authz.wire.values import (
    enum_names,
    malformed,
    missing,
    parse_duration_us,
    parse_enum,
    parse_optional_id,
    parse_scope,
    parse_subject,
    parse_time,
    quoted,
    scope_message,
    set_time,
    subject_message,
)

COURSE_STATES = enum_names(pb.CourseState.items(), "COURSE_STATE_")
SESSION_STATES = enum_names(pb.SessionState.items(), "SESSION_STATE_")
STATUSES = enum_names(pb.MembershipStatus.items(), "MEMBERSHIP_STATUS_")
VISIBILITIES = enum_names(pb.Visibility.items(), "VISIBILITY_")
_LEVELS = enum_names(pb.ShareLevel.items(), "SHARE_LEVEL_")
OPERATIONS = enum_names(dpb.Operation.items(), "OPERATION_")
_EXPECTATIONS = enum_names(dpb.Expectation.items(), "EXPECTATION_")


def parse_type(text: str, *, field: str) -> str:
    """A well-formed name of a type; whether it is declared is the policy's to say."""
    if not text:
        raise missing(field)
    if not is_name(text):
        raise malformed(field, f"`{quoted(text)}` is not the name of a type")
    return text


def parse_visibility(number: int, *, field: str) -> Visibility:
    """A visibility; PRIVATE when not stated."""
    return parse_enum(Visibility, VISIBILITIES, number, field=field, default=Visibility.PRIVATE)


def _course(m: pb.Course) -> Course:
    window = parse_duration_us(m.edit_window) if m.HasField("edit_window") else DEFAULT_EDIT_WINDOW_US
    return Course(
        id=parse_id(m.id, field="course.id"),
        state=parse_enum(
            CourseState, COURSE_STATES, m.state, field="course.state", default=CourseState.DRAFT
        ),
        ai_enabled=m.ai_enabled,
        edit_window_us=window,
    )


def _session(m: pb.Session) -> Session:
    return Session(
        id=parse_id(m.id, field="session.id"),
        course_id=parse_optional_id(m.course_id, field="session.course_id"),
        state=parse_enum(
            SessionState, SESSION_STATES, m.state, field="session.state", default=SessionState.SCHEDULED
        ),
        starts_at=parse_time(m, "starts_at", field="session.starts_at"),
        ends_at=parse_time(m, "ends_at", field="session.ends_at"),
        open_to_course=m.open_to_course,
    )


def _membership_key(m: pb.Membership) -> MembershipKey:
    role = m.role
    if not role:
        raise missing("membership.role")
    return MembershipKey(
        parse_subject(m, "subject", field="membership.subject"),
        parse_scope(m, "scope", field="membership.scope"),
        role,
    )


def _membership(m: pb.Membership) -> Membership:
    key = _membership_key(m)
    return Membership(
        subject=key.subject,
        scope=key.scope,
        role=key.role,
        status=parse_enum(
            MembershipStatus, STATUSES, m.status, field="membership.status", default=MembershipStatus.ACTIVE
        ),
        starts_at=parse_time(m, "starts_at", field="membership.starts_at"),
        ends_at=parse_time(m, "ends_at", field="membership.ends_at"),
        source=m.source,
        source_ref=m.source_ref,
    )


def _resource_key(m: pb.Resource) -> ResourceRef:
    return ResourceRef(parse_type(m.type, field="resource.type"), parse_id(m.id, field="resource.id"))


def _resource(m: pb.Resource) -> Resource:
    key = _resource_key(m)
    return Resource(
        type=key.type,
        id=key.id,
        scope=parse_scope(m, "scope", field="resource.scope"),
        owner=parse_subject(m, "owner", field="resource.owner") if m.HasField("owner") else None,
        visibility=parse_visibility(m.visibility, field="resource.visibility"),
        published=m.published,
        available_from=parse_time(m, "available_from", field="resource.available_from"),
        available_until=parse_time(m, "available_until", field="resource.available_until"),
        created_at=parse_time(m, "created_at", field="resource.created_at"),
        locked=m.locked,
        ai_allowed=m.ai_allowed,
    )


def _share_key(m: pb.Share) -> ShareKey:
    ref = ResourceRef(
        parse_type(m.resource_type, field="share.resource_type"),
        parse_id(m.resource_id, field="share.resource_id"),
    )
    return ShareKey(ref, parse_subject(m, "subject", field="share.subject"))


def _share(m: pb.Share) -> Share:
    key = _share_key(m)
    level = parse_enum(ShareLevel, _LEVELS, m.level, field="share.level")
    return Share(resource=key.resource, subject=key.subject, level=level)


def parse_versioned(
    m: pb.Course | pb.Session | pb.Membership | pb.Resource | pb.Share,
) -> Versioned[Entity]:
    """An entity with its version, as a Read call gives it."""
    return Versioned(_parse_entity(m), m.version)


def _parse_entity(m: pb.Course | pb.Session | pb.Membership | pb.Resource | pb.Share) -> Entity:
    if isinstance(m, pb.Course):
        return _course(m)
    if isinstance(m, pb.Session):
        return _session(m)
    if isinstance(m, pb.Membership):
        return _membership(m)
    if isinstance(m, pb.Resource):
        return _resource(m)
    return _share(m)


def _parse_key(m: dpb.Mutation | dpb.Precondition) -> Key:
    match m.WhichOneof("entity"):
        case "course":
            return CourseKey(parse_id(m.course.id, field="course.id"))
        case "session":
            return SessionKey(parse_id(m.session.id, field="session.id"))
        case "membership":
            return _membership_key(m.membership)
        case "resource":
            return _resource_key(m.resource)
        case "share":
            return _share_key(m.share)
        case _:
            raise missing("entity")


def parse_mutation(m: dpb.Mutation) -> Mutation:
    """A mutation; of a DELETE only the identifying fields are read."""
    operation = parse_enum(Operation, OPERATIONS, m.operation, field="mutation.operation")
    if operation is Operation.DELETE:
        return Mutation(operation, _parse_key(m))
    kind = m.WhichOneof("entity")
    if kind is None:
        raise missing("mutation.entity")
    return Mutation(operation, _parse_entity(getattr(m, kind)))


def parse_precondition(m: dpb.Precondition) -> Precondition:
    """A precondition; its version is that of the entity field."""
    expectation = parse_enum(Expectation, _EXPECTATIONS, m.expectation, field="precondition.expectation")
    key = _parse_key(m)
    version: int = getattr(m, str(m.WhichOneof("entity"))).version
    return Precondition(key, expectation, version)


def precondition_message(precondition: Precondition) -> dpb.Precondition:
    """A precondition as a message."""
    message = dpb.Precondition(expectation=dpb.Expectation.Value(f"EXPECTATION_{precondition.expectation}"))
    body = _key_message(precondition.key)
    body.version = precondition.version
    getattr(message, kind_of(precondition.key).value).CopyFrom(body)
    return message


def entity_message(
    versioned: Versioned[Entity],
) -> pb.Course | pb.Session | pb.Membership | pb.Resource | pb.Share:
    """An entity with its version, as a message."""
    message = message_of(versioned.entity)
    message.version = versioned.version
    return message


def mutation_message(mutation: Mutation) -> dpb.Mutation:
    """A mutation as a message. A key fills the identifying fields only."""
    message = dpb.Mutation(operation=dpb.Operation.Value(f"OPERATION_{mutation.operation}"))
    target = mutation.target
    body = _key_message(target) if isinstance(target, Key) else message_of(target)
    getattr(message, mutation.kind.value).CopyFrom(body)
    return message


def _key_message(key: Key) -> pb.Course | pb.Session | pb.Membership | pb.Resource | pb.Share:
    match key:
        case CourseKey(id=course_id):
            return pb.Course(id=course_id)
        case SessionKey(id=session_id):
            return pb.Session(id=session_id)
        case MembershipKey(subject=subject, scope=scope, role=role):
            return pb.Membership(subject=subject_message(subject), scope=scope_message(scope), role=role)
        case ResourceRef(type=type_name, id=resource_id):
            return pb.Resource(type=type_name, id=resource_id)
        case ShareKey(resource=ref, subject=subject):
            return pb.Share(resource_type=ref.type, resource_id=ref.id, subject=subject_message(subject))


@singledispatch
def message_of(entity: Entity) -> pb.Course | pb.Session | pb.Membership | pb.Resource | pb.Share:
    """An entity as a message, without version."""
    raise TypeError(f"no message for {type(entity).__name__}")


@message_of.register
def course_message(entity: Course) -> pb.Course:
    """A course as a message."""
    message = pb.Course(
        id=entity.id, state=pb.CourseState.Value(f"COURSE_STATE_{entity.state}"), ai_enabled=entity.ai_enabled
    )
    seconds, rest = divmod(entity.edit_window_us, US_PER_S)
    message.edit_window.seconds = seconds
    message.edit_window.nanos = rest * 1000
    message.edit_window.SetInParent()
    return message


@message_of.register
def session_message(entity: Session) -> pb.Session:
    """A session as a message."""
    message = pb.Session(
        id=entity.id,
        course_id=entity.course_id or "",
        state=pb.SessionState.Value(f"SESSION_STATE_{entity.state}"),
        open_to_course=entity.open_to_course,
    )
    set_time(message.starts_at, entity.starts_at)
    set_time(message.ends_at, entity.ends_at)
    return message


@message_of.register
def membership_message(entity: Membership) -> pb.Membership:
    """A membership as a message."""
    message = pb.Membership(
        subject=subject_message(entity.subject),
        scope=scope_message(entity.scope),
        role=entity.role,
        status=pb.MembershipStatus.Value(f"MEMBERSHIP_STATUS_{entity.status}"),
        source=entity.source,
        source_ref=entity.source_ref,
    )
    set_time(message.starts_at, entity.starts_at)
    set_time(message.ends_at, entity.ends_at)
    return message


@message_of.register
def resource_message(entity: Resource) -> pb.Resource:
    """A resource as a message."""
    message = pb.Resource(
        type=entity.type,
        id=entity.id,
        scope=scope_message(entity.scope),
        owner=None if entity.owner is None else subject_message(entity.owner),
        visibility=pb.Visibility.Value(f"VISIBILITY_{entity.visibility}"),
        published=entity.published,
        locked=entity.locked,
        ai_allowed=entity.ai_allowed,
    )
    set_time(message.available_from, entity.available_from)
    set_time(message.available_until, entity.available_until)
    set_time(message.created_at, entity.created_at)
    return message


@message_of.register
def share_message(entity: Share) -> pb.Share:
    """A share as a message."""
    return pb.Share(
        resource_type=entity.resource.type,
        resource_id=entity.resource.id,
        subject=subject_message(entity.subject),
        level=pb.ShareLevel.Value(f"SHARE_LEVEL_{entity.level}"),
    )
