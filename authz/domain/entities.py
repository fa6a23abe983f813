"""What the directory holds. One definition is the type, the validation and the stored form.

Every entity has a `key` that identifies it; two entities with one key are one entity at two times.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Generic, TypeAlias, TypeVar

import msgspec

from authz.domain.ids import ResourceRef, Scope, Subject
from authz.domain.instants import US_PER_S, Instant

DEFAULT_EDIT_WINDOW_US = 15 * 60 * US_PER_S


class CourseState(StrEnum):
    """Where a course is in its life."""

    DRAFT = "DRAFT"
    ACTIVE = "ACTIVE"
    CONCLUDED = "CONCLUDED"
    ARCHIVED = "ARCHIVED"


class SessionState(StrEnum):
    """Where a session is in its life."""

    SCHEDULED = "SCHEDULED"
    LIVE = "LIVE"
    ENDED = "ENDED"
    CANCELLED = "CANCELLED"


class MembershipStatus(StrEnum):
    """What has become of a membership, apart from its dates."""

    INVITED = "INVITED"
    ACTIVE = "ACTIVE"
    COMPLETED = "COMPLETED"
    SUSPENDED = "SUSPENDED"


class Visibility(StrEnum):
    """To whom, of those with a role, a resource is open beyond its owner and shares."""

    PRIVATE = "PRIVATE"
    SESSION = "SESSION"
    COURSE = "COURSE"


class ShareLevel(StrEnum):
    """What a share opens. An editor is also a viewer."""

    VIEWER = "VIEWER"
    EDITOR = "EDITOR"


class EntityKind(StrEnum):
    """The five kinds of entity; the values are the tags of their stored form."""

    COURSE = "course"
    SESSION = "session"
    MEMBERSHIP = "membership"
    RESOURCE = "resource"
    SHARE = "share"


class CourseKey(msgspec.Struct, frozen=True, gc=False, tag_field="kind", tag="course_key"):
    """Identifies a course."""

    id: str

    @property
    def key(self) -> CourseKey:
        """Itself."""
        return self

    def __str__(self) -> str:
        return f"course:{self.id}"


class SessionKey(msgspec.Struct, frozen=True, gc=False, tag_field="kind", tag="session_key"):
    """Identifies a session."""

    id: str

    @property
    def key(self) -> SessionKey:
        """Itself."""
        return self

    def __str__(self) -> str:
        return f"session:{self.id}"


class MembershipKey(msgspec.Struct, frozen=True, gc=False, tag_field="kind", tag="membership_key"):
    """Identifies a membership: one row to revoke for a subject, a scope and a role."""

    subject: Subject
    scope: Scope
    role: str

    @property
    def key(self) -> MembershipKey:
        """Itself."""
        return self

    def __str__(self) -> str:
        return f"membership {self.subject} {self.role} in {self.scope}"


class ShareKey(msgspec.Struct, frozen=True, gc=False, tag_field="kind", tag="share_key"):
    """Identifies a share."""

    resource: ResourceRef
    subject: Subject

    @property
    def key(self) -> ShareKey:
        """Itself."""
        return self

    def __str__(self) -> str:
        return f"share of {self.resource} with {self.subject}"


class Course(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag_field="kind", tag="course"):
    """A course."""

    id: str
    state: CourseState = CourseState.DRAFT
    ai_enabled: bool = False
    edit_window_us: int = DEFAULT_EDIT_WINDOW_US

    @property
    def key(self) -> CourseKey:
        """Its identity."""
        return CourseKey(self.id)


class Session(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag_field="kind", tag="session"):
    """A live meeting, of a course or standing alone. Its course never changes."""

    id: str
    course_id: str | None = None
    state: SessionState = SessionState.SCHEDULED
    starts_at: Instant | None = None
    ends_at: Instant | None = None
    open_to_course: bool = False

    @property
    def key(self) -> SessionKey:
        """Its identity."""
        return SessionKey(self.id)


class Membership(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag_field="kind", tag="membership"):
    """One subject, one scope, one role. In effect while `starts_at` <= t < `ends_at`."""

    subject: Subject
    scope: Scope
    role: str
    status: MembershipStatus = MembershipStatus.ACTIVE
    starts_at: Instant | None = None
    ends_at: Instant | None = None
    source: str = ""
    source_ref: str = ""

    @property
    def key(self) -> MembershipKey:
        """Its identity."""
        return MembershipKey(self.subject, self.scope, self.role)


class Resource(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag_field="kind", tag="resource"):
    """A piece of content. Its scope never changes; without an owner nobody's it is."""

    type: str
    id: str
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


class Share(msgspec.Struct, frozen=True, gc=False, kw_only=True, tag_field="kind", tag="share"):
    """A resource opened to one subject. It never reaches past membership."""

    resource: ResourceRef
    subject: Subject
    level: ShareLevel

    @property
    def key(self) -> ShareKey:
        """Its identity."""
        return ShareKey(self.resource, self.subject)


Entity: TypeAlias = Course | Session | Membership | Resource | Share
Key: TypeAlias = CourseKey | SessionKey | MembershipKey | ResourceRef | ShareKey

EntityT_co = TypeVar("EntityT_co", bound=Entity, covariant=True)


class Versioned(msgspec.Struct, Generic[EntityT_co], frozen=True, gc=False):
    """An entity with the revision of the write that last changed it."""

    entity: EntityT_co
    version: int


_KINDS: dict[type[Entity | Key], EntityKind] = {
    Course: EntityKind.COURSE,
    CourseKey: EntityKind.COURSE,
    Session: EntityKind.SESSION,
    SessionKey: EntityKind.SESSION,
    Membership: EntityKind.MEMBERSHIP,
    MembershipKey: EntityKind.MEMBERSHIP,
    Resource: EntityKind.RESOURCE,
    ResourceRef: EntityKind.RESOURCE,
    Share: EntityKind.SHARE,
    ShareKey: EntityKind.SHARE,
}


def kind_of(value: Entity | Key) -> EntityKind:
    """The kind of an entity or of a key."""
    return _KINDS[type(value)]
