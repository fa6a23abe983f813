"""Versions of policies, as a client receives them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from authz.client.arguments import message_of
from authz.client.questions import warn_unless_replicated
from authz.domain.entities import PolicyVersion
from authz.domain.errors import PolicyFault, PolicyWarning, malformed
from authz.v1 import common_pb2, policy_pb2
from authz.wire.entities import parse_versioned

PROOF_TIMEOUT_S = 180.0
"""For a call that proves, tests or compares a policy: a review of the policies of 36,000 courses takes 15 s,
and a minute on a busy machine; the tests of a policy take up to 30 s."""


class PolicyTests(msgspec.Struct, frozen=True, kw_only=True):
    """How many tests passed, and how many of the rules and of the cells with an allow rule none touches."""

    passed: int
    rules: int
    untouched_rules: int
    cells: int
    untouched_cells: int


class PolicyValidation(msgspec.Struct, frozen=True, kw_only=True):
    """Faults, ordered by place; and warnings, of which a policy with faults has none."""

    faults: list[PolicyFault]
    warnings: list[PolicyWarning]


class PublishedPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """The version that is active, without its files, and whether it differs from the one before. None is
    active after the first policy of a course was validated only.

    `written_at` is the token of a state that includes the activation: a check that is at least as fresh is
    decided by this version or a later one. `replicated` as in the answer to a write. `tests` is what its
    tests came to; None for the policy of a course, which has none. `warnings` as in `PolicyValidation`.
    """

    active: PolicyVersion | None
    changed: bool
    written_at: str
    replicated: bool
    tests: PolicyTests | None
    warnings: list[PolicyWarning]

    @property
    def number(self) -> int:
        """The number of the active version; 0 for none."""
        return 0 if self.active is None else self.active.number


def file_messages(files: Mapping[str, str]) -> list[common_pb2.PolicyFile]:
    """The messages of files, by name. Raises `InvalidArgumentError` for what is none, and without files: that
    would stand for the active version."""
    if not isinstance(files, Mapping):
        raise malformed("files", "is no mapping; give the text of each file by its name")
    if not files:
        raise malformed("files", "is empty; read the version or the draft first: only that tells its files")
    return [message_of(common_pb2.PolicyFile, name=name, text=text) for name, text in files.items()]


def policy_fields(policy: Mapping[str, str] | int, prefix: str = "") -> dict[str, Any]:
    """The field of a request for a policy: its files, or the number of a version."""
    if isinstance(policy, int):
        return {f"{prefix}number": policy}
    return {f"{prefix}files": file_messages(policy)}


def version_of(message: common_pb2.PolicyVersion) -> PolicyVersion:
    """The version of a message."""
    version = parse_versioned(message).entity
    assert isinstance(version, PolicyVersion)  # noqa: S101  the message is of this kind; narrows the type
    return version


def published_of(response: policy_pb2.ApplyPolicyResponse | Any) -> PublishedPolicy:
    """What was published, of an answer to any of the calls that publish. Warns as `Client.write`."""
    warn_unless_replicated(response.replicated)
    return PublishedPolicy(
        active=version_of(response.active) if response.HasField("active") else None,
        changed=response.changed,
        written_at=response.written_at.token,
        replicated=response.replicated,
        tests=PolicyTests(**{name: getattr(response.tests, name) for name in PolicyTests.__struct_fields__})
        if response.HasField("tests")
        else None,
        warnings=warnings_of(response),
    )


def faults_of(response: policy_pb2.ValidatePolicyResponse | Any) -> tuple[PolicyFault, ...]:
    """The faults of an answer that has some."""
    return tuple(PolicyFault(each.file, each.line, each.column, each.message) for each in response.faults)


def warnings_of(response: policy_pb2.ValidatePolicyResponse | Any) -> list[PolicyWarning]:
    """The warnings of an answer that has some."""
    return [PolicyWarning(each.where, each.message, each.role) for each in response.warnings]
