"""The Python SDK, with the records, keys and ids that its calls take."""

from authz.client.aio.client import AsyncClient
from authz.client.cache import DecisionCache
from authz.client.combined import SessionAccess, SourceAnswer
from authz.client.contract import proto_directory
from authz.client.drafts import Draft, DraftPublication
from authz.client.errors import CallError, ItemFault
from authz.client.explanations import (
    ExplainedFact,
    ExplainedMembership,
    ExplainedRule,
    Explanation,
    NearestChange,
)
from authz.client.lists import ListPage
from authz.client.plans import ResourcePlan
from authz.client.policies import PolicyTests, PolicyValidation, PublishedPolicy
from authz.client.questions import (
    AccessibleResource,
    ActionAnswer,
    Answer,
    ImportOutcome,
    PermittedSubject,
    ResourceActions,
    WriteToken,
    check_request,
)
from authz.client.sync.audit import AuditClient
from authz.client.sync.client import Client
from authz.client.sync.drafts import DraftClient
from authz.client.sync.policies import PolicyClient
from authz.client.sync.privacy import PrivacyClient
from authz.client.sync.shadows import ShadowClient
from authz.client.touches import BareTouchWarning
from authz.client.watch import WatchedChange
from authz.domain.audit import LoggedChange
from authz.domain.decision_log import DecisionEntry
from authz.domain.decisions import Reason
from authz.domain.drafts import AddRow, DeleteFile, PutFile, RemoveRow, SetCell
from authz.domain.effective_roles import InactiveReason
from authz.domain.entities import (
    AccessToken,
    AccessTokenFilter,
    AccessTokenKey,
    Account,
    AccountFilter,
    AccountKey,
    AccountStatus,
    Course,
    CourseFilter,
    CourseKey,
    CourseState,
    EntityKind,
    Membership,
    MembershipFilter,
    MembershipKey,
    MembershipStatus,
    Resource,
    ResourceFilter,
    RetainedData,
    Session,
    SessionFilter,
    SessionKey,
    SessionState,
    Share,
    ShareFilter,
    ShareKey,
    ShareLevel,
    Versioned,
    Visibility,
)
from authz.domain.errors import AuthzError, ErrorReason, InvalidArgumentError, PolicyFault, PolicyWarning
from authz.domain.explanation import ChangeKind
from authz.domain.ids import (
    PLATFORM,
    ResourceRef,
    Scope,
    ScopeKind,
    Subject,
    SubjectType,
    course_scope,
    parse_resource_ref,
    parse_scope,
    parse_subject,
    session_scope,
)
from authz.domain.instants import Instant, from_datetime, to_datetime
from authz.domain.lists import PlanGroup, PlanKind
from authz.domain.mutations import Expectation, ImportFault, Mutation, Operation, Precondition, update
from authz.domain.policy_changes import PolicyCertificate
from authz.domain.predicates import AllOf, AnyOf, Comparison, Operator, Predicate, ResourceField
from authz.domain.proofs import AuditLog
from authz.domain.shadow import ShadowReport

__all__ = [
    "PLATFORM",
    "AccessToken",
    "AccessTokenFilter",
    "AccessTokenKey",
    "AccessibleResource",
    "Account",
    "AccountFilter",
    "AccountKey",
    "AccountStatus",
    "ActionAnswer",
    "AddRow",
    "AllOf",
    "Answer",
    "AnyOf",
    "AsyncClient",
    "AuditClient",
    "AuditLog",
    "AuthzError",
    "BareTouchWarning",
    "CallError",
    "ChangeKind",
    "Client",
    "Comparison",
    "Course",
    "CourseFilter",
    "CourseKey",
    "CourseState",
    "DecisionCache",
    "DecisionEntry",
    "DeleteFile",
    "Draft",
    "DraftClient",
    "DraftPublication",
    "EntityKind",
    "ErrorReason",
    "Expectation",
    "ExplainedFact",
    "ExplainedMembership",
    "ExplainedRule",
    "Explanation",
    "ImportFault",
    "ImportOutcome",
    "InactiveReason",
    "Instant",
    "InvalidArgumentError",
    "ItemFault",
    "ListPage",
    "LoggedChange",
    "Membership",
    "MembershipFilter",
    "MembershipKey",
    "MembershipStatus",
    "Mutation",
    "NearestChange",
    "Operation",
    "Operator",
    "PermittedSubject",
    "PlanGroup",
    "PlanKind",
    "PolicyCertificate",
    "PolicyClient",
    "PolicyFault",
    "PolicyTests",
    "PolicyValidation",
    "PolicyWarning",
    "Precondition",
    "Predicate",
    "PrivacyClient",
    "PublishedPolicy",
    "PutFile",
    "Reason",
    "RemoveRow",
    "Resource",
    "ResourceActions",
    "ResourceField",
    "ResourceFilter",
    "ResourcePlan",
    "ResourceRef",
    "RetainedData",
    "Scope",
    "ScopeKind",
    "Session",
    "SessionAccess",
    "SessionFilter",
    "SessionKey",
    "SessionState",
    "SetCell",
    "ShadowClient",
    "ShadowReport",
    "Share",
    "ShareFilter",
    "ShareKey",
    "ShareLevel",
    "SourceAnswer",
    "Subject",
    "SubjectType",
    "Versioned",
    "Visibility",
    "WatchedChange",
    "WriteToken",
    "check_request",
    "course_scope",
    "from_datetime",
    "parse_resource_ref",
    "parse_scope",
    "parse_subject",
    "proto_directory",
    "session_scope",
    "to_datetime",
    "update",
]
