"""The versions of the platform's policy and of those of courses, seen from a client."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grpc
import msgspec

from authz.client.drafts import Draft, DraftClient
from authz.client.errors import error_of
from authz.domain.entities import PolicyVersion
from authz.domain.errors import PolicyFault, PolicyWarning
from authz.domain.files import read_files
from authz.domain.impact import Impact, PreviewProgress, PreviewTotals
from authz.domain.policy_changes import PolicyDiff
from authz.v1 import common_pb2, policy_pb2, policy_pb2_grpc
from authz.wire.entities import parse_versioned
from authz.wire.policies import parse_diff
from authz.wire.previews import parse_preview


class PolicyTests(msgspec.Struct, frozen=True, kw_only=True):
    """How many tests passed, and how many of the rules and of the cells with an allow rule none touches."""

    passed: int
    rules: int
    untouched_rules: int
    cells: int
    untouched_cells: int


class PolicyCertificate(msgspec.Struct, frozen=True, kw_only=True):
    """That a version keeps its invariants, for which digests and over how many cases. `json` is the whole
    certificate, which `authz policy prove --check` accepts."""

    policy_digest: str
    invariants_digest: str
    invariants: int
    obligations: int
    json: str


class PolicyValidation(msgspec.Struct, frozen=True, kw_only=True):
    """Faults, ordered by place; and warnings, of which a policy with faults, or of a course, has none."""

    faults: list[PolicyFault]
    warnings: list[PolicyWarning]


class PublishedPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The version that is active, without its files, and whether it differs from the one before. None is
    active after the first policy of a course was validated only.

    `written_at` is the token of a state that includes the activation: a check that is at least as fresh is
    decided by this version or a later one. `replicated` as in the answer to a write. `tests` is what its
    tests came to; None for the policy of a course, which has none.
    """

    active: PolicyVersion | None
    changed: bool
    written_at: str
    replicated: bool
    tests: PolicyTests | None

    @property
    def number(self) -> int:
        """The number of the active version; 0 for none."""
        return 0 if self.active is None else self.active.number


class PolicyClient:
    """`Client.policies`: publishes and reads versions. Every call raises `CallError`.

    With `course_id`, a call is about the policy that this course has of its own: one file, `course.csv`.
    """

    def __init__(
        self, stub: policy_pb2_grpc.PolicyServiceStub, call: Callable[[Callable[..., Any], object], Any]
    ) -> None:
        self._stub = stub
        self._call = call
        self.drafts = DraftClient(stub, call)
        """Makes and edits drafts."""

    def apply(
        self,
        files: Mapping[str, str],
        *,
        author: str = "",
        reason: str = "",
        expected_active: int = 0,
        validate_only: bool = False,
        course_id: str = "",
    ) -> PublishedPolicy:
        """Make files (name to text) the next version, and activate it. Equal files change nothing.

        `expected_active` is the number that must be active, 0 for any.
        """
        request = policy_pb2.ApplyPolicyRequest(
            files=_messages(files),
            expected_active_number=expected_active,
            author=author,
            reason=reason,
            validate_only=validate_only,
            course_id=course_id,
        )
        return _published(self._call(self._stub.ApplyPolicy, request))

    def roll_back(
        self,
        number: int,
        *,
        author: str = "",
        reason: str = "",
        expected_active: int = 0,
        course_id: str = "",
    ) -> PublishedPolicy:
        """Make the next version from the files of an earlier one, and activate it."""
        request = policy_pb2.RollBackPolicyRequest(
            number=number,
            expected_active_number=expected_active,
            author=author,
            reason=reason,
            course_id=course_id,
        )
        return _published(self._call(self._stub.RollBackPolicy, request))

    def publish(self, draft: Draft, *, author: str = "", reason: str = "") -> PublishedPolicy:
        """Make a draft the next version, activate it, and delete the draft. It must have been made from, or
        rebased onto, the active version."""
        request = policy_pb2.PublishPolicyDraftRequest(
            id=draft.id, etag=draft.etag, author=author, reason=reason
        )
        return _published(self._call(self._stub.PublishPolicyDraft, request))

    def validate(self, files: Mapping[str, str], *, course_id: str = "") -> list[PolicyFault]:
        """Every fault of a policy, ordered by place; none for one that can be applied."""
        return self.validation(files, course_id=course_id).faults

    def validation(self, files: Mapping[str, str], *, course_id: str = "") -> PolicyValidation:
        """Every fault of a policy, and what is legal and surprising, for the directory as it is, too."""
        request = policy_pb2.ValidatePolicyRequest(files=_messages(files), course_id=course_id)
        found = self._call(self._stub.ValidatePolicy, request)
        return PolicyValidation(
            faults=[PolicyFault(each.file, each.line, each.column, each.message) for each in found.faults],
            warnings=[PolicyWarning(each.where, each.message) for each in found.warnings],
        )

    def diff(
        self,
        before: Mapping[str, str] | int = 0,
        after: Mapping[str, str] | int = 0,
        *,
        course_id: str = "",
    ) -> PolicyDiff:
        """What two policies decide differently. Each is files, or the number of a version, 0 for the active
        one."""
        request = policy_pb2.DiffPolicyVersionsRequest(course_id=course_id)
        if isinstance(before, int):
            request.before_number = before
        else:
            request.before_files.extend(_messages(before))
        if isinstance(after, int):
            request.after_number = after
        else:
            request.after_files.extend(_messages(after))
        return parse_diff(self._call(self._stub.DiffPolicyVersions, request))

    def preview(
        self,
        policy: Mapping[str, str] | int,
        *,
        course_id: str = "",
        max_examples: int = 1,
        max_largest: int = 20,
    ) -> Iterator[PreviewProgress | Impact | PreviewTotals]:
        """Who would gain and lose what if a policy were active: files, or the number of a version; of a
        course, with `course_id`.

        Yields rows as they are found, each for subjects to whom the same applies, and progress; the totals
        last. Has no time limit. Stop reading to end it.
        """
        request = policy_pb2.PreviewPolicyRequest(
            course_id=course_id, max_examples=max_examples, max_largest=max_largest
        )
        if isinstance(policy, int):
            request.number = policy
        else:
            request.files.extend(_messages(policy))
        stream = self._stub.PreviewPolicy(request)
        try:
            for message in stream:
                yield from parse_preview(message)
        except grpc.RpcError as failure:
            raise error_of(failure) from None
        finally:
            stream.cancel()

    def versions(self, *, course_id: str = "") -> Iterator[PolicyVersion]:
        """All versions without their files, ordered by number. Fetches pages as needed."""
        request = policy_pb2.ReadPolicyVersionsRequest(course_id=course_id)
        while True:
            response = self._call(self._stub.ReadPolicyVersions, request)
            yield from map(_version, response.policy_versions)
            request.page_token = response.next_page_token
            if not request.page_token:
                return

    def active_number(self, *, course_id: str = "") -> int:
        """The number of the version that is active."""
        request = policy_pb2.ReadPolicyVersionRequest(course_id=course_id)
        response = self._call(self._stub.ReadPolicyVersion, request)
        return int(response.active_number)

    def files(self, number: int = 0, *, course_id: str = "") -> dict[str, str]:
        """The files of a version by name; of the active one for 0."""
        request = policy_pb2.ReadPolicyVersionRequest(number=number, course_id=course_id)
        response = self._call(self._stub.ReadPolicyVersion, request)
        return read_files(_version(response.policy_version).files)

    def certificate(self, number: int = 0, *, course_id: str = "") -> PolicyCertificate:
        """The proof of the invariants of a version; of the active one for 0."""
        request = policy_pb2.ReadPolicyVersionRequest(
            number=number, include_certificate=True, course_id=course_id
        )
        found = self._call(self._stub.ReadPolicyVersion, request).certificate
        return PolicyCertificate(
            **{name: getattr(found, name) for name in PolicyCertificate.__struct_fields__}
        )


def _messages(files: Mapping[str, str]) -> list[common_pb2.PolicyFile]:
    return [common_pb2.PolicyFile(name=name, text=text) for name, text in files.items()]


def _version(message: common_pb2.PolicyVersion) -> PolicyVersion:
    version = parse_versioned(message).entity
    assert isinstance(version, PolicyVersion)  # noqa: S101  the message is of this kind; narrows the type
    return version


def _published(response: Any) -> PublishedPolicy:
    return PublishedPolicy(
        active=_version(response.active) if response.HasField("active") else None,
        changed=response.changed,
        written_at=response.written_at.token,
        replicated=response.replicated,
        tests=PolicyTests(**{name: getattr(response.tests, name) for name in PolicyTests.__struct_fields__})
        if response.HasField("tests")
        else None,
    )
