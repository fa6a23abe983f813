"""The records that the directory holds, and the registry of their kinds.

Every entity has a `key` that identifies it; two entities with one key are one record at two times. To add a
kind, write its module in `authz/domain/kinds` and register it below: in `EntityKind`, `KINDS` and the two
unions.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Generic, TypeAlias, TypeVar

import msgspec

from authz.domain.ids import ResourceRef
from authz.domain.kinds.access_token import ACCESS_TOKEN, AccessToken, AccessTokenFilter, AccessTokenKey
from authz.domain.kinds.account import ACCOUNT, Account, AccountFilter, AccountKey, AccountStatus
from authz.domain.kinds.course import (
    COURSE,
    DEFAULT_EDIT_WINDOW_US,
    Course,
    CourseFilter,
    CourseKey,
    CourseState,
)
from authz.domain.kinds.erasure import ERASURE, Erasure, ErasureFilter, ErasureKey, ErasureStatus
from authz.domain.kinds.hold import HOLD, Hold, HoldFilter, HoldKey
from authz.domain.kinds.kind import Container, Filter, Kind
from authz.domain.kinds.membership import (
    MEMBERSHIP,
    Membership,
    MembershipFilter,
    MembershipKey,
    MembershipStatus,
)
from authz.domain.kinds.policy import (
    PLATFORM_ACTIVATION,
    POLICY_ACTIVATION,
    POLICY_VERSION,
    PolicyActivation,
    PolicyActivationFilter,
    PolicyActivationKey,
    PolicyVersion,
    PolicyVersionFilter,
    PolicyVersionKey,
)
from authz.domain.kinds.resource import RESOURCE, Resource, ResourceFilter, Visibility
from authz.domain.kinds.restriction import RESTRICTION, Restriction, RestrictionFilter, RestrictionKey
from authz.domain.kinds.retention_rule import (
    RETENTION_RULE,
    RetainedData,
    RetentionRule,
    RetentionRuleFilter,
    RetentionRuleKey,
)
from authz.domain.kinds.session import SESSION, Session, SessionFilter, SessionKey, SessionState
from authz.domain.kinds.share import SHARE, Share, ShareFilter, ShareKey, ShareLevel

__all__ = [
    "DEFAULT_EDIT_WINDOW_US",
    "KINDS",
    "KINDS_BY_TYPE",
    "PLATFORM_ACTIVATION",
    "AccessToken",
    "AccessTokenFilter",
    "AccessTokenKey",
    "Account",
    "AccountFilter",
    "AccountKey",
    "AccountStatus",
    "Container",
    "Course",
    "CourseFilter",
    "CourseKey",
    "CourseState",
    "Entity",
    "EntityKind",
    "EntityT_co",
    "Erasure",
    "ErasureFilter",
    "ErasureKey",
    "ErasureStatus",
    "Filter",
    "Hold",
    "HoldFilter",
    "HoldKey",
    "Key",
    "Kind",
    "Membership",
    "MembershipFilter",
    "MembershipKey",
    "MembershipStatus",
    "PolicyActivation",
    "PolicyActivationFilter",
    "PolicyActivationKey",
    "PolicyVersion",
    "PolicyVersionFilter",
    "PolicyVersionKey",
    "Resource",
    "ResourceFilter",
    "Restriction",
    "RestrictionFilter",
    "RestrictionKey",
    "RetainedData",
    "RetentionRule",
    "RetentionRuleFilter",
    "RetentionRuleKey",
    "Session",
    "SessionFilter",
    "SessionKey",
    "SessionState",
    "Share",
    "ShareFilter",
    "ShareKey",
    "ShareLevel",
    "Versioned",
    "Visibility",
    "container_of",
    "kind_of",
]


class EntityKind(StrEnum):
    """The names of the kinds of record."""

    COURSE = "course"
    SESSION = "session"
    MEMBERSHIP = "membership"
    RESOURCE = "resource"
    SHARE = "share"
    ACCOUNT = "account"
    ACCESS_TOKEN = "access_token"  # noqa: S105  the name of a kind
    POLICY_VERSION = "policy_version"
    POLICY_ACTIVATION = "policy_activation"
    ERASURE = "erasure"
    RETENTION_RULE = "retention_rule"
    HOLD = "hold"
    RESTRICTION = "restriction"


KINDS = {
    kind.name: kind
    for kind in (
        COURSE,
        SESSION,
        MEMBERSHIP,
        RESOURCE,
        SHARE,
        ACCOUNT,
        ACCESS_TOKEN,
        POLICY_VERSION,
        POLICY_ACTIVATION,
        ERASURE,
        RETENTION_RULE,
        HOLD,
        RESTRICTION,
    )
}
"""By name, a container before what it contains: in this order records may be written."""

Entity: TypeAlias = (
    Course
    | Session
    | Membership
    | Resource
    | Share
    | Account
    | AccessToken
    | PolicyVersion
    | PolicyActivation
    | Erasure
    | RetentionRule
    | Hold
    | Restriction
)
Key: TypeAlias = (
    CourseKey
    | SessionKey
    | MembershipKey
    | ResourceRef
    | ShareKey
    | AccountKey
    | AccessTokenKey
    | PolicyVersionKey
    | PolicyActivationKey
    | ErasureKey
    | RetentionRuleKey
    | HoldKey
    | RestrictionKey
)

EntityT_co = TypeVar("EntityT_co", bound=Entity, covariant=True)


class Versioned(msgspec.Struct, Generic[EntityT_co], frozen=True, gc=False):
    """An entity with the revision of the write that last changed it."""

    entity: EntityT_co
    revision: int


KINDS_BY_TYPE = {struct: kind for kind in KINDS.values() for struct in (kind.entity, kind.key)}


def kind_of(record: Entity | Key) -> Kind:
    """The kind of an entity or of a key."""
    return KINDS_BY_TYPE[type(record)]


def container_of(record: Entity | Key) -> Key | None:
    """The key of the record that a record is in; None for none, and if a key alone does not say it."""
    key: Key | None = kind_of(record).container_key(record)
    return key
