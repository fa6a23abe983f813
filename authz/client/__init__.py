"""The Python SDK."""

from authz.client.aio.client import AsyncClient
from authz.client.cache import DecisionCache
from authz.client.combined import SessionAccess, SourceAnswer
from authz.client.contract import proto_directory
from authz.client.drafts import Draft, DraftPublication
from authz.client.errors import CallError, ItemFault
from authz.client.explanations import Explanation
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
from authz.domain.effective_roles import InactiveReason
from authz.domain.errors import AuthzError, InvalidArgumentError
from authz.domain.mutations import update
from authz.domain.policy_changes import PolicyCertificate
from authz.domain.shadow import ShadowReport

__all__ = [
    "AccessibleResource",
    "ActionAnswer",
    "Answer",
    "AsyncClient",
    "AuditClient",
    "AuthzError",
    "BareTouchWarning",
    "CallError",
    "Client",
    "DecisionCache",
    "DecisionEntry",
    "Draft",
    "DraftClient",
    "DraftPublication",
    "Explanation",
    "ImportOutcome",
    "InactiveReason",
    "InvalidArgumentError",
    "ItemFault",
    "LoggedChange",
    "PermittedSubject",
    "PolicyCertificate",
    "PolicyClient",
    "PolicyTests",
    "PolicyValidation",
    "PrivacyClient",
    "PublishedPolicy",
    "Reason",
    "ResourceActions",
    "ResourcePlan",
    "SessionAccess",
    "ShadowClient",
    "ShadowReport",
    "SourceAnswer",
    "WatchedChange",
    "WriteToken",
    "check_request",
    "proto_directory",
    "update",
]
