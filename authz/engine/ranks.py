"""The rank of the role of a membership, also of one that the active policy no longer declares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeAlias

from authz.domain.entities import MembershipKey, PolicyActivation
from authz.domain.files import FORMAT, read_files
from authz.domain.ids import PLATFORM, ScopeKind
from authz.domain.ports import Snapshot
from authz.engine.check import Checker
from authz.policy.load import declared_roles

_MAX_READ = 1_000
"""Versions that are read for the ranks of roles, at some 0.1 ms each, once for each active version."""
_RetiredRanks: TypeAlias = Mapping[tuple[str, ScopeKind], int]


class Ranks(NamedTuple):
    """The ranks in one state. `checker` decides by the version that is active in it."""

    snapshot: Snapshot
    checker: Checker

    def of(self, key: MembershipKey) -> int | None:
        """The rank of a role in its kind of scope; None if no version declares it. A role that is no longer
        declared keeps its last one: its holders have it again with a version that declares it."""
        declared = self.checker.policy.vocabulary.roles.get(key.role)
        if declared is not None and declared.scope_kind is key.scope.kind:
            return declared.rank
        retired = self.checker.cached(_RetiredRanks, lambda _: _retired_ranks(self.snapshot))
        return retired.get((key.role, key.scope.kind))


def _retired_ranks(snapshot: Snapshot) -> _RetiredRanks:
    """The rank of each role in the last version before the active one that declares it."""
    ranks: dict[tuple[str, ScopeKind], int] = {}
    newest = 0 if snapshot.policy is None else snapshot.policy.number - 1
    for number in range(newest, max(0, newest - _MAX_READ), -1):
        version = snapshot.policy_version(PolicyActivation(PLATFORM, number, ""))
        if version is not None and version.format == FORMAT:
            for role in declared_roles(read_files(version.files)):
                ranks.setdefault((role.name, role.scope_kind), role.rank)
    return ranks
