"""Every method of the API: its kind of call, and the permission that each of its callers needs."""

from __future__ import annotations

from collections.abc import Mapping

from authz.api.call import CallKind

METHODS: Mapping[str, tuple[CallKind, str]] = {
    # AuthorizationService
    "Check": (CallKind.DECISION, ""),
    "BatchCheck": (CallKind.BATCH, ""),
    "ListActions": (CallKind.DECISION, "check"),
    "BatchListActions": (CallKind.BATCH, "check"),
    "Explain": (CallKind.DECISION, "explain"),
    "AuthorizeSession": (CallKind.DECISION, "check"),
    "AuthorizeSources": (CallKind.BATCH, "check_ai_process"),
    "ListResources": (CallKind.LIST, "list_resources"),
    "PlanResources": (CallKind.LIST, "list_resources"),
    "ListSubjects": (CallKind.LIST, "list_subjects"),
    # DirectoryService
    "Write": (CallKind.WRITE, ""),
    "Import": (CallKind.IMPORT, ""),
    "RemoveMember": (CallKind.WRITE, "write_memberships"),
    "ReadCourses": (CallKind.READ, "read_courses"),
    "ReadSessions": (CallKind.READ, "read_sessions"),
    "ReadMemberships": (CallKind.READ, "read_memberships"),
    "ReadResources": (CallKind.READ, "read_resources"),
    "ReadShares": (CallKind.READ, "read_shares"),
    "ReadAccounts": (CallKind.READ, "read_accounts"),
    "ReadAccessTokens": (CallKind.READ, "read_access_tokens"),
    # PolicyService
    "ApplyPolicy": (CallKind.POLICY, "apply_policy"),
    "RollBackPolicy": (CallKind.POLICY, "apply_policy"),
    "ValidatePolicy": (CallKind.POLICY, "read_policy"),
    "DiffPolicyVersions": (CallKind.POLICY, "read_policy"),
    "PreviewPolicy": (CallKind.LIST, "read_policy"),
    "ReadPolicyVersions": (CallKind.READ, "read_policy"),
    "ReadPolicyActivations": (CallKind.READ, "read_policy"),
    "ReadPolicyVersion": (CallKind.READ, "read_policy"),
    "CreatePolicyDraft": (CallKind.POLICY, "draft_policy"),
    "ReadPolicyDrafts": (CallKind.READ, "read_policy"),
    "ReadPolicyDraft": (CallKind.READ, "read_policy"),
    "EditPolicyDraft": (CallKind.POLICY, "draft_policy"),
    "PublishPolicyDraft": (CallKind.POLICY, "apply_policy"),
    "SchedulePolicyDraft": (CallKind.POLICY, "apply_policy"),
    "DeletePolicyDraft": (CallKind.POLICY, "draft_policy"),
    "StartPolicyShadow": (CallKind.POLICY, "draft_policy"),
    "ReadPolicyShadow": (CallKind.READ, "read_policy"),
    "StopPolicyShadow": (CallKind.POLICY, "draft_policy"),
    # WatchService
    "Watch": (CallKind.WATCH, "watch"),
    # PrivacyService
    # No decision: the person that it is made for counts, and it leaves a log line.
    "ExportSubject": (CallKind.READ, "export_subject"),
    "EraseSubject": (CallKind.WRITE, "erase_subject"),
    "ReadErasures": (CallKind.READ, "erase_subject"),
    "ForgetReplica": (CallKind.WRITE, "erase_subject"),
    "ForgetWatcher": (CallKind.WRITE, "erase_subject"),
    "ReleaseErasedSubject": (CallKind.WRITE, "erase_subject"),
    "RenameSubject": (CallKind.WRITE, "rename_subject"),
    "HoldSubject": (CallKind.WRITE, "erase_subject"),
    "ReleaseHold": (CallKind.WRITE, "erase_subject"),
    "ReadHolds": (CallKind.READ, "erase_subject"),
    "RestrictSubject": (CallKind.WRITE, "erase_subject"),
    "LiftRestriction": (CallKind.WRITE, "erase_subject"),
    "ReadRestrictions": (CallKind.READ, "erase_subject"),
    "ReadRetention": (CallKind.READ, "read_retention"),
    "SetRetention": (CallKind.WRITE, "set_retention"),
    # AuditService
    "ReadChanges": (CallKind.READ, "read_changes"),
    "ReadDecisions": (CallKind.READ, "read_decisions"),
    "ReadCheckpoint": (CallKind.READ, "read_changes"),
    "ReadInclusionProof": (CallKind.READ, ""),
    "ReadConsistencyProof": (CallKind.READ, ""),
}
"""By name. A permission is an action of the type `api`. An empty one depends on what the request says, and
the servicer asks for it. A server does not start if it has a method that is not listed here.
"""
