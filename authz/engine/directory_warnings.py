"""What is legal and surprising about a policy: by itself, against the active one, and for the directory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import structlog

from authz.domain.consistency import MINIMIZE_LATENCY
from authz.domain.decisions import EDIT_POLICY
from authz.domain.errors import PolicyWarning, UnavailableError, UnusablePolicyError
from authz.domain.ids import PLATFORM, Scope, course_scope
from authz.domain.ports import Snapshot
from authz.domain.vocabulary import GRANT_ROLES
from authz.engine.consistency import ConsistencyGate
from authz.engine.policies import ActiveChecker, CompiledPolicies
from authz.engine.turns import Turns
from authz.policy.compile import CompiledPolicy
from authz.policy.invariants import INVARIANTS_FILE, Invariant
from authz.policy.lint import lint
from authz.policy.load import POLICY_FILE
from authz.policy.weakened import weakened

log = structlog.get_logger()


class PolicyWarnings:
    """Finds the warnings of policies of the platform, in slices between checks."""

    def __init__(
        self, gate: ConsistencyGate, active: ActiveChecker, policies: CompiledPolicies, turns: Turns
    ) -> None:
        self._gate = gate
        self._active = active
        self._policies = policies
        self._turns = turns

    async def of(self, policy: CompiledPolicy, invariants: Sequence[Invariant]) -> tuple[PolicyWarning, ...]:
        """Those of the policy by itself, then of invariants that prove less than those of the active version,
        then for the directory.

        That the directory or those invariants cannot be read is a warning, too: it must not stop a rollback.
        """
        found = [*await self._gate.compute(lint, policy)]
        try:
            snapshot, active, _ = await self._active.get(MINIMIZE_LATENCY, None)
        except UnavailableError as error:
            why = f"was not compared with the policy: {error}; validate the policy again later"
            return (*found, PolicyWarning("directory", why))
        found += _administration(active.policy, policy)
        assert snapshot.policy is not None  # noqa: S101  it was compiled; narrows the type
        try:
            before = await self._gate.compute(self._policies.invariants, snapshot.policy)
            lost = [*weakened(before, invariants, policy.vocabulary)]
        except UnusablePolicyError as error:
            lost = [f"cannot be compared with that of the active version: {error}"]
        found += [
            PolicyWarning(INVARIANTS_FILE, f"{text}; it is published only with `--weaken-invariants`")
            for text in lost
        ]
        async for part in self._turns.parts(directory_warnings(snapshot, active.policy, policy)):
            found += [warning for warning in part if warning is not None]
        return tuple(found)


def log_weakened(number: int, warnings: Sequence[PolicyWarning]) -> None:
    """Log which invariants a version of the platform that was published has weakened: no record says it."""
    lost = [each.text for each in warnings if each.where == INVARIANTS_FILE]
    if lost:
        log.warning("invariants weakened", policy_version=str(number), lost=lost)


def _administration(before: CompiledPolicy, after: CompiledPolicy) -> Iterator[PolicyWarning]:
    """Permissions that somebody on the platform must keep, and that no role has any more."""
    was, will = before.vocabulary, after.vocabulary
    for action, had, has in (
        (EDIT_POLICY, was.administrators, will.administrators),
        (GRANT_ROLES, was.granters, will.granters),
    ):
        if had and not has:
            text = f"lets no role on the platform `{action}` any more; it is refused while somebody has that"
            yield PolicyWarning(POLICY_FILE, f"{text} right, so keep a row that allows it")


def directory_warnings(
    snapshot: Snapshot, before: CompiledPolicy, after: CompiledPolicy
) -> Iterator[PolicyWarning | None]:
    """Rows of courses that do not exist, then roles that are no longer declared and that somebody holds.

    Yields None after each small step, so that the work can be sliced. Memberships are read only if a role is
    gone.
    """
    rows: dict[str, str] = {}
    for rule in after.rules:
        rows.setdefault(rule.scope, rule.source)
    for course_id in after.overrides:
        scope = course_scope(course_id)
        yield None
        if snapshot.scope(scope) is None:
            text = f"there is no course `{course_id}`, so the row decides nothing; correct or remove it"
            yield PolicyWarning(rows[str(scope)], text)
    gone = [role for role in before.vocabulary.roles if role not in after.vocabulary.roles]
    if not gone:
        return
    held: dict[str, int] = dict.fromkeys(gone, 0)
    scopes: dict[str, set[Scope]] = {role: set() for role in gone}
    for found in _memberships(snapshot):
        yield None
        if found is not None and found[1] in held:
            scope_held, role = found
            held[role] += 1
            scopes[role].add(scope_held)
    for role in gone:
        if held[role]:
            yield PolicyWarning(f"role `{role}`", _lost(held[role], scopes[role]))


def _memberships(snapshot: Snapshot) -> Iterator[tuple[Scope, str] | None]:
    for context in chain((snapshot.scope(PLATFORM),), snapshot.scan_contexts()):
        yield None
        if context is not None:
            scope = context.scopes[-1]
            for _, memberships in snapshot.scan_memberships(context):
                yield from ((scope, membership.role) for membership in memberships)


def _lost(count: int, scopes: set[Scope]) -> str:
    holders = "1 membership has it" if count == 1 else f"{count:,} memberships have it"
    where = f"in {next(iter(scopes))}" if len(scopes) == 1 else f"in {len(scopes):,} scopes"
    return f"is no longer declared, and {holders}, {where}; give them another role first, or keep the role"
