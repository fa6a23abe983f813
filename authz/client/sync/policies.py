# Generated from authz/client/aio/policies.py; see `make client`.
"""The versions of the platform's policy and of those of courses, seen from a client."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec

from authz.client.arguments import message_of, nonzero, sent_course
from authz.client.drafts import Draft, draft_fields
from authz.client.policies import (
    PROOF_TIMEOUT_S,
    PolicyValidation,
    PublishedPolicy,
    faults_of,
    file_messages,
    policy_fields,
    published_of,
    version_of,
    warnings_of,
)
from authz.client.sync.calls import Calls
from authz.client.sync.drafts import DraftClient
from authz.client.sync.shadows import ShadowClient
from authz.domain.entities import PolicyActivation, PolicyVersion
from authz.domain.errors import PolicyFault
from authz.domain.files import read_files
from authz.domain.ids import PLATFORM
from authz.domain.impact import Impact, PreviewProgress, PreviewTotals
from authz.domain.policy_changes import PolicyCertificate, PolicyDiff
from authz.v1 import policy_pb2, policy_pb2_grpc
from authz.wire.entities import parse_versioned
from authz.wire.policies import parse_diff
from authz.wire.previews import parse_preview


class PolicyClient:
    """`Client.policies`: publishes and reads versions. Every call raises `CallError`.

    A call that proves, tests or compares a policy may take `PROOF_TIMEOUT_S`, however short `timeout_s` is.
    With `course_id`, a call is about the policy that this course has of its own: one file, `course.csv`.
    """

    def __init__(self, stub: policy_pb2_grpc.PolicyServiceStub, calls: Calls) -> None:
        self._stub = stub
        self._calls = calls
        self._proofs = calls.at_least(PROOF_TIMEOUT_S)
        self.drafts = DraftClient(stub, calls)
        """Makes and edits drafts."""
        self.shadow = ShadowClient(stub, calls)
        """Evaluates a candidate policy on live checks, alongside the active policy."""

    def apply(
        self,
        files: Mapping[str, str],
        *,
        author: str = "",
        reason: str = "",
        expected_active: int | None = None,
        validate_only: bool = False,
        course_id: str | None = None,
        weaken_invariants: bool = False,
    ) -> PublishedPolicy:
        """Make files (name to text) the next version, and activate it. Equal files change nothing.

        `expected_active` is the number that must be active, 0 if none may be, as before the first policy of a
        course. By default, whatever is active is replaced. Fails with INVARIANTS_WEAKENED if its invariants
        cover less than those of the active version, unless `weaken_invariants` is set.
        """
        request = message_of(
            policy_pb2.ApplyPolicyRequest,
            files=file_messages(files),
            expected_active_number=expected_active,
            author=author,
            reason=reason,
            validate_only=validate_only,
            course_id=sent_course(course_id),
            weaken_invariants=weaken_invariants,
        )
        return published_of(self._proofs.call(self._stub.ApplyPolicy, request))

    def roll_back(
        self,
        number: int,
        *,
        author: str = "",
        reason: str = "",
        expected_active: int | None = None,
        course_id: str | None = None,
        weaken_invariants: bool = False,
    ) -> PublishedPolicy:
        """Make the next version from the files of an earlier one, and activate it. `expected_active` and
        `weaken_invariants` as in `apply`."""
        request = message_of(
            policy_pb2.RollBackPolicyRequest,
            number=number,
            expected_active_number=expected_active,
            author=author,
            reason=reason,
            course_id=sent_course(course_id),
            weaken_invariants=weaken_invariants,
        )
        return published_of(self._proofs.call(self._stub.RollBackPolicy, request))

    def publish(
        self, draft: Draft, *, author: str = "", reason: str = "", weaken_invariants: bool = False
    ) -> PublishedPolicy:
        """Make a draft the next version, activate it, and delete the draft. It must have been made from, or
        rebased onto, the active version. `weaken_invariants` as in `apply`."""
        request = message_of(
            policy_pb2.PublishPolicyDraftRequest,
            **draft_fields(draft),
            author=author,
            reason=reason,
            weaken_invariants=weaken_invariants,
        )
        return published_of(self._proofs.call(self._stub.PublishPolicyDraft, request))

    def validate(self, files: Mapping[str, str], *, course_id: str | None = None) -> list[PolicyFault]:
        """Every fault of a policy, ordered by place; none for one that can be applied."""
        return (self.validation(files, course_id=course_id)).faults

    def validation(self, files: Mapping[str, str], *, course_id: str | None = None) -> PolicyValidation:
        """Every fault of a policy, and what is legal and surprising, for the directory as it is, too."""
        request = message_of(
            policy_pb2.ValidatePolicyRequest, files=file_messages(files), course_id=sent_course(course_id)
        )
        found = self._proofs.call(self._stub.ValidatePolicy, request)
        return PolicyValidation(faults=list(faults_of(found)), warnings=warnings_of(found))

    def diff(
        self,
        before: Mapping[str, str] | int = 0,
        after: Mapping[str, str] | int = 0,
        *,
        course_id: str | None = None,
    ) -> PolicyDiff:
        """What two policies decide differently. Each is files, or the number of a version, 0 for the active
        one."""
        request = message_of(
            policy_pb2.DiffPolicyVersionsRequest,
            course_id=sent_course(course_id),
            **policy_fields(before, "before_"),
            **policy_fields(after, "after_"),
        )
        return parse_diff(self._proofs.call(self._stub.DiffPolicyVersions, request))

    def preview(
        self,
        policy: Mapping[str, str] | int,
        *,
        course_id: str | None = None,
        max_examples: int = 1,
        max_largest: int = 20,
    ) -> Iterator[PreviewProgress | Impact | PreviewTotals]:
        """Who would gain and lose what if a policy were active: files, or the number of a version; of a
        course, with `course_id`.

        Yields rows as they are found, each for subjects to whom the same applies, and progress; the totals
        last. Has no time limit. Stop reading to end it.
        """
        request = message_of(
            policy_pb2.PreviewPolicyRequest,
            course_id=sent_course(course_id),
            max_examples=nonzero(max_examples, field="max_examples"),
            max_largest=nonzero(max_largest, field="max_largest"),
            **policy_fields(policy),
        )
        for message in self._calls.stream(self._stub.PreviewPolicy, request):
            for each in parse_preview(message):
                yield each

    def versions(self, *, course_id: str | None = None) -> Iterator[PolicyVersion]:
        """All versions without their files, ordered by number. Fetches pages as needed."""
        request = message_of(policy_pb2.ReadPolicyVersionsRequest, course_id=sent_course(course_id))
        for page in self._calls.pages(self._stub.ReadPolicyVersions, request):
            for each in page.policy_versions:
                yield version_of(each)

    def of_courses(self) -> Iterator[PolicyActivation]:
        """Which version is active in each course that has a policy of its own, ordered by course id."""
        request = policy_pb2.ReadPolicyActivationsRequest(page_size=1000)
        for page in self._calls.pages(self._stub.ReadPolicyActivations, request):
            for each in page.policy_activations:
                active = parse_versioned(each).entity
                if isinstance(active, PolicyActivation) and active.scope != PLATFORM:
                    yield active

    def active_number(self, *, course_id: str | None = None) -> int:
        """The number of the version that is active."""
        request = message_of(policy_pb2.ReadPolicyVersionRequest, course_id=sent_course(course_id))
        response = self._calls.call(self._stub.ReadPolicyVersion, request)
        return int(response.active_number)

    def files(self, number: int = 0, *, course_id: str | None = None) -> dict[str, str]:
        """The files of a version by name; of the active one for 0."""
        request = message_of(
            policy_pb2.ReadPolicyVersionRequest, number=number, course_id=sent_course(course_id)
        )
        response = self._calls.call(self._stub.ReadPolicyVersion, request)
        return read_files(version_of(response.policy_version).files)

    def certificate(self, number: int = 0, *, course_id: str | None = None) -> PolicyCertificate:
        """The proof of the invariants of a version; of the active one for 0."""
        request = message_of(
            policy_pb2.ReadPolicyVersionRequest,
            number=number,
            include_certificate=True,
            course_id=sent_course(course_id),
        )
        response = self._proofs.call(self._stub.ReadPolicyVersion, request)
        return msgspec.convert(response.certificate, PolicyCertificate, from_attributes=True)
