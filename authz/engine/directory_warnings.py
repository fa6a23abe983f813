"""What is legal and surprising about a policy: by itself, against the active one, and for the directory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Sequence
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
    """Rows of courses that do not exist, then roles and types that are no longer declared and that records
    have.

    Yields None after each small step, so that the work can be sliced. Memberships and resources are read only
    if a role or a type is gone.
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
    roles = [role for role in before.vocabulary.roles if role not in after.vocabulary.roles]
    if roles:
        for role, scopes in (yield from _places(roles, _memberships(snapshot))).items():
            yield PolicyWarning(f"role `{role}`", _lost_role(scopes))
    types = [name for name in before.vocabulary.types if name not in after.vocabulary.types]
    if types:
        for name, scopes in (yield from _places(types, _resources(snapshot, types))).items():
            yield PolicyWarning(f"type `{name}`", _lost_type(scopes))


def _places(
    names: Sequence[str], found: Iterator[tuple[Scope, str] | None]
) -> Generator[None, None, dict[str, Counter[Scope]]]:
    """The scopes of the records that have each of the names, with their numbers; only of names that some
    have."""
    places: dict[str, Counter[Scope]] = {name: Counter() for name in names}
    for each in found:
        yield None
        if each is not None and each[1] in places:
            scope, name = each
            places[name][scope] += 1
    return {name: scopes for name, scopes in places.items() if scopes}


def _memberships(snapshot: Snapshot) -> Iterator[tuple[Scope, str] | None]:
    for context in chain((snapshot.scope(PLATFORM),), snapshot.scan_contexts()):
        yield None
        if context is not None:
            scope = context.scopes[-1]
            for _, memberships in snapshot.scan_memberships(context):
                yield from ((scope, membership.role) for membership in memberships)


def _resources(snapshot: Snapshot, types: Sequence[str]) -> Iterator[tuple[Scope, str] | None]:
    for context in snapshot.scan_contexts():
        yield None
        if context is not None:
            for name in types:
                yield from ((context.scopes[-1], name) for _ in snapshot.scan_owned(context, name))


def _lost_role(scopes: Counter[Scope]) -> str:
    held = _held(scopes, "1 membership has it", "memberships have it")
    return f"is no longer declared, and {held}; give them another role first, or keep the role"


def _lost_type(scopes: Counter[Scope]) -> str:
    held = _held(scopes, "1 resource has it", "resources have it")
    return (
        f"is no longer declared, and {held}; checks of them fail then, and only who may write every type that"
        " is left may delete them: delete them first, or keep the type"
    )


def _held(scopes: Counter[Scope], one: str, many: str) -> str:
    count = scopes.total()
    where = f"in {next(iter(scopes))}" if len(scopes) == 1 else f"in {len(scopes):,} scopes"
    return f"{one if count == 1 else f'{count:,} {many}'}, {where}"
