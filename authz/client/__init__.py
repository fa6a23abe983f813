"""The Python SDK."""

from authz.client.client import Client
from authz.client.contract import proto_directory
from authz.client.drafts import Draft, DraftClient
from authz.client.errors import CallError, ItemFault
from authz.client.explanations import Explanation
from authz.client.policies import (
    PolicyCertificate,
    PolicyClient,
    PolicyTests,
    PolicyValidation,
    PublishedPolicy,
)
from authz.client.questions import (
    AccessibleResource,
    Answer,
    ImportOutcome,
    PermittedSubject,
    check_request,
)
from authz.client.touches import BareTouchWarning
from authz.client.watch import WatchedChange
from authz.domain.mutations import update

__all__ = [
    "AccessibleResource",
    "Answer",
    "BareTouchWarning",
    "CallError",
    "Client",
    "Draft",
    "DraftClient",
    "Explanation",
    "ImportOutcome",
    "ItemFault",
    "PermittedSubject",
    "PolicyCertificate",
    "PolicyClient",
    "PolicyTests",
    "PolicyValidation",
    "PublishedPolicy",
    "WatchedChange",
    "check_request",
    "proto_directory",
    "update",
]
