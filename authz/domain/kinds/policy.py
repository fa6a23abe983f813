"""The versions of a policy, and which of them is active: their keys, filters and rules."""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

from authz.domain.errors import malformed
from authz.domain.files import FORMAT, same_files
from authz.domain.ids import PLATFORM, Scope, ScopeKind
from authz.domain.instants import Instant
from authz.domain.kinds.fields import Digest, FilesText, MaxLength, Number, Reason
from authz.domain.kinds.kind import Filter, Kind, RecordKey
from authz.domain.kinds.session import IN_SCOPE
from authz.domain.vocabulary import Vocabulary

_Author: TypeAlias = Annotated[str, MaxLength(256)]

SERVICE = "PolicyService"


class PolicyVersionKey(RecordKey, frozen=True, gc=False, tag="policy_version_key"):
    """Identifies a version of the policy of a scope."""

    scope: Scope
    number: Number

    def __str__(self) -> str:
        whose = "" if self.scope == PLATFORM else f" of {self.scope}"
        return f"version {self.number} of the policy{whose}"


class PolicyVersion(msgspec.Struct, frozen=True, gc=False, tag_field="kind", tag="policy_version"):
    """One version of a policy. Never changes.

    Versions are numbered from 1, without gaps. `format` says how `files` are to be read: a release that does
    not know it cannot decide by this version. `digest` is that of the files: equal files, equal digests.
    `weakens_invariants` says that its invariants cover less than those of the version before.
    """

    scope: Scope
    number: Number
    digest: Digest
    files: FilesText
    format: Number
    author: _Author = ""
    reason: Reason = ""
    created_at: Instant | None = None
    weakens_invariants: bool = False

    @property
    def key(self) -> PolicyVersionKey:
        """Its identity."""
        return PolicyVersionKey(self.scope, self.number)

    def has_files(self, files: str) -> bool:
        """Whether a version of these files would be the same, apart from line endings."""
        return self.format == FORMAT and same_files(self.files, files)


class PolicyVersionFilter(Filter[PolicyVersion], frozen=True, kw_only=True):
    """Versions by scope, number."""

    scope: Scope | None = None
    number: Number | None = None


class PolicyActivationKey(RecordKey, frozen=True, gc=False, tag="policy_activation_key"):
    """Identifies the activation of a scope."""

    scope: Scope

    def __str__(self) -> str:
        return f"active policy of {self.scope}"


class PolicyActivation(msgspec.Struct, frozen=True, gc=False, tag_field="kind", tag="policy_activation"):
    """Which version of the policy of a scope is active."""

    scope: Scope
    number: Number
    digest: Digest

    @property
    def key(self) -> PolicyActivationKey:
        """Its identity."""
        return PolicyActivationKey(self.scope)


class PolicyActivationFilter(Filter[PolicyActivation], frozen=True, kw_only=True):
    """Activations by scope."""

    scope: Scope | None = None


def _validate(record: PolicyVersion | PolicyActivation, _: Vocabulary) -> None:
    if record.scope.kind is ScopeKind.SESSION:
        raise malformed("scope", "is a session, which has no policy of its own; name its course")


POLICY_VERSION = Kind(
    PolicyVersion,
    PolicyVersionKey,
    PolicyVersionFilter,
    key_order=("scope", "number"),
    container=IN_SCOPE,
    rule=_validate,
    service=SERVICE,
)

POLICY_ACTIVATION = Kind(
    PolicyActivation,
    PolicyActivationKey,
    PolicyActivationFilter,
    key_order=("scope",),
    container=IN_SCOPE,
    rule=_validate,
    service=SERVICE,
)

PLATFORM_ACTIVATION = PolicyActivationKey(PLATFORM)
"""The key of the activation that decides for the whole platform."""
