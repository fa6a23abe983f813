"""The nearest grants of a denial: the smallest changes that would allow it, each found by deciding again.

A change is to the memberships, the account, the state of the course, or the facts. The search goes through
the roles that some changes give, and there through the rules: what a rule that would allow still needs, and
what must change so that no deny matches. Of all sets that allow it keeps the smallest, so that no part of one
allows. For example, to a subject without a membership, who may not read an unpublished material, it names
roles such as `teacher`, but not `student`, which would also need the fact `published`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import chain, product

import msgspec

from authz.domain.effective_roles import (
    EffectiveRoles,
    Memberships,
    MembershipTerms,
    Suspension,
    effective_roles_of,
)
from authz.domain.entities import CourseState, MembershipStatus
from authz.domain.explanation import ChangeKind
from authz.domain.facts import ATTENDING, COURSE_ARCHIVED, FACTS, consequences
from authz.domain.ids import ScopeKind
from authz.domain.instants import Instant
from authz.engine.check import opens
from authz.policy.compile import CompiledPolicy, CompiledRules
from authz.policy.condition import Condition

_ANY_TIME = 0
MAX_CHANGES = 4
"""Sets of more changes are not looked for."""
MAX_ROLE_SETS = 5_000
"""How many sets of changes to the roles are tried. Only somebody with dozens of memberships that give no
role, under a policy with dozens of roles, has more."""


class Denial(msgspec.Struct, frozen=True):
    """All that the nearest grants of a denial follow from, so that they can be cached by it.

    `memberships` are those that were looked at, as they are now: without dates, and invited for one that does
    not apply at this time. `suspensions` are ACCOUNT, RESTRICTION or both, as they take every role away.
    `facts` is every fact that holds, `fixed` those that no change can be about.
    `course_id` is that of a course with rules of its own, and `course_policy` the digest of its policy.
    """

    type_name: str
    action: str
    is_content: bool
    course_id: str | None
    course_policy: str
    kinds: tuple[ScopeKind, ...]
    course_state: CourseState | None
    open_to_course: bool
    memberships: Memberships
    suspensions: tuple[ChangeKind, ...]
    facts: int
    fixed: int = 0


class Step(msgspec.Struct, frozen=True):
    """One change: a `Change` without what does not matter to a decision."""

    kind: ChangeKind
    scope_kind: ScopeKind | None = None
    roles: tuple[str, ...] = ()
    fact: str = ""
    holds: bool = True


def timeless(membership: MembershipTerms, now: Instant) -> MembershipTerms:
    """A membership without dates that gives now what this one gives."""
    if not membership.has_dates:
        return membership
    status = membership.status
    if membership.is_suspended(now):
        status = MembershipStatus.SUSPENDED
    elif status is MembershipStatus.ACTIVE and not (
        (membership.starts_at is None or membership.starts_at <= now)
        and (membership.ends_at is None or now < membership.ends_at)
    ):
        status = MembershipStatus.INVITED
    return MembershipTerms(membership.kind, membership.role, status)


def nearest_grants(policy: CompiledPolicy, denial: Denial) -> tuple[tuple[Step, ...], ...]:
    """The smallest sets of changes that allow what is denied; none if more than 4 changes were needed, or
    more than `MAX_ROLE_SETS` had to be tried."""
    best = MAX_CHANGES
    found: list[tuple[Step, ...]] = []
    for tried, made in enumerate(_changes_of_roles(policy, denial)):
        if len(made) > best:
            break
        if tried == MAX_ROLE_SETS:
            return ()
        for more in _changes_of_facts(policy, denial, made, best - len(made)):
            if len(made) + len(more) < best:
                best, found = len(made) + len(more), []
            if len(made) + len(more) == best:
                found.append((*made, *more))
    return _with_roles_joined(policy, dict.fromkeys(found))


def _changes_of_roles(policy: CompiledPolicy, denial: Denial) -> Iterator[tuple[Step, ...]]:
    """Sets of changes to the account, the course and the memberships, at most one new among them; the
    smallest first."""
    repairs = _repairs(denial)
    additions = _additions(policy, denial)
    for size in range(MAX_CHANGES + 1):
        yield from (some for some in repairs if len(some) == size)
        for some in repairs:
            if len(some) == size - 1:
                yield from ((*some, added) for added in additions)


def _repairs(denial: Denial) -> list[tuple[Step, ...]]:
    """Sets of changes to the account, to the course and to the memberships that are there; none at all if
    they are more than `MAX_ROLE_SETS`.

    Suspensions in a scope end all together, since one of them takes all roles there. Of the other memberships
    that give no role, one in each scope is enough: what several roles allow, one of them allows.
    """
    ways: list[list[tuple[Step, ...]]] = []
    ways += ([(Step(kind),)] for kind in denial.suspensions)
    if denial.course_state not in (None, CourseState.ACTIVE):
        ways.append([(Step(ChangeKind.COURSE_STATE, ScopeKind.COURSE),)])
    for kind in ScopeKind:
        without_role = {
            Step(ChangeKind.MEMBERSHIP, kind, (each.role,)): each.status is MembershipStatus.SUSPENDED
            for each in denial.memberships
            if each.kind is kind and each.status is not MembershipStatus.ACTIVE
        }
        ways.append([(step,) for step, is_suspended in without_role.items() if not is_suspended])
        ways.append([tuple(step for step, is_suspended in without_role.items() if is_suspended)])
    choices = [dict.fromkeys([(), *way]) for way in ways]
    if math.prod(map(len, choices)) > MAX_ROLE_SETS:
        return []
    sets = (tuple(chain.from_iterable(some)) for some in product(*choices))
    return [each for each in sets if len(each) <= MAX_CHANGES]


def _additions(policy: CompiledPolicy, denial: Denial) -> list[Step]:
    """Every membership that is not there, in each scope that counts."""
    there = {(membership.kind, membership.role) for membership in denial.memberships}
    return [
        Step(ChangeKind.ROLE, kind, (role.name,))
        for kind in denial.kinds
        for role in policy.vocabulary.roles.values()
        if role.scope_kind is kind and (kind, role.name) not in there
    ]


def _held_after(policy: CompiledPolicy, denial: Denial, made: Iterable[Step]) -> EffectiveRoles:
    """The roles after some changes."""
    memberships = {(each.kind, each.role): each for each in denial.memberships}
    suspensions, state = {*denial.suspensions}, denial.course_state
    for step in made:
        if step.kind in denial.suspensions:
            suspensions.remove(step.kind)
        elif step.kind is ChangeKind.COURSE_STATE:
            state = CourseState.ACTIVE
        elif step.scope_kind is not None:
            kind, role = step.scope_kind, step.roles[0]
            memberships[kind, role] = MembershipTerms(kind, role, MembershipStatus.ACTIVE)
    suspension = Suspension() if suspensions else None
    return effective_roles_of(tuple(memberships.values()), state, policy.role_table, _ANY_TIME, suspension)


def _changes_of_facts(
    policy: CompiledPolicy, denial: Denial, made: tuple[Step, ...], most: int
) -> Iterator[tuple[Step, ...]]:
    """Sets of at most so many changes to facts that allow after some changes to the roles."""
    held = _held_after(policy, denial, made)
    if not opens(held, denial.type_name):
        return
    facts = denial.facts & ~ATTENDING
    if ScopeKind.SESSION in denial.kinds and (held.in_session or (held.in_course and denial.open_to_course)):
        facts |= ATTENDING
    if any(step.kind is ChangeKind.COURSE_STATE for step in made):
        facts &= ~COURSE_ARCHIVED
    rules = policy.rules_for(held.roles, denial.course_id, denial.type_name, denial.action)
    if rules.verdict(facts).allowed:
        yield ()
    elif most:
        changeable = _changeable(denial, held)
        for allow in rules.allows:
            for on, off in _ways_to(rules, allow.condition, facts, changeable, most):
                if rules.verdict(facts & ~off | on).allowed:
                    yield _fact_steps(on, off)


def _changeable(denial: Denial, held: EffectiveRoles) -> int:
    """The facts that a change to a record or to the request decides, but for the roles and the course's
    state."""
    found = 0
    for fact in FACTS:
        if (fact.needs is None or fact.needs in denial.kinds) and (
            denial.is_content or not fact.is_of_resource
        ):
            found |= fact.bit
    found &= ~COURSE_ARCHIVED
    if held.in_session or not held.in_course:  # else it is for the session to be open to the course, or not
        found &= ~ATTENDING
    return found & ~denial.fixed


def _ways_to(
    rules: CompiledRules, allow: Condition, facts: int, changeable: int, most: int
) -> Iterator[tuple[int, int]]:
    """Which facts must become true, and which false, so that a condition holds and no deny matches: only
    those that are changeable, by at most so many changes."""

    def satisfied(on: int, off: int) -> Iterator[tuple[int, int]]:
        follows = consequences(on, off)
        if follows is None:
            return
        on, off = follows
        becomes, ends = on & ~facts, off & facts
        if (becomes | ends) & ~changeable or len(_fact_steps(becomes, ends)) > most:
            return  # what follows from a deny only adds to them
        after = facts & ~off | on
        deny = next((each.condition for each in rules.denies if each.condition.holds(after)), None)
        if deny is None:
            yield becomes, ends
            return
        for fact in FACTS:
            if fact.bit & deny.required & ~on:
                yield from satisfied(on, off | fact.bit)
            elif fact.bit & deny.forbidden & ~off:
                yield from satisfied(on | fact.bit, off)

    return satisfied(allow.required, allow.forbidden)


def _fact_steps(on: int, off: int) -> tuple[Step, ...]:
    """One change for the facts with the same inputs, which one change to a record decides together: what
    comes to hold by it, else what does not hold any more."""
    steps: dict[tuple[str, ...], Step] = {}
    for fact in FACTS:
        if fact.bit & on:
            steps[fact.computed_from] = Step(ChangeKind.FACT, fact=fact.name)
        elif fact.bit & off and fact.computed_from not in steps:
            steps[fact.computed_from] = Step(ChangeKind.FACT, fact=fact.name, holds=False)
    return tuple(steps.values())


def _with_roles_joined(
    policy: CompiledPolicy, found: Iterable[tuple[Step, ...]]
) -> tuple[tuple[Step, ...], ...]:
    """Sets that differ in the new role only become one, with all of these roles, the lowest rank first."""
    joined: dict[tuple[Step, ...], list[str]] = {}
    for steps in found:
        added = (role for step in steps if step.kind is ChangeKind.ROLE for role in step.roles)
        joined.setdefault(_with_new_roles(steps, ()), []).extend(added)
    ranks = policy.vocabulary.roles
    return tuple(
        _with_new_roles(steps, tuple(sorted(roles, key=lambda name: (ranks[name].rank, name))))
        for steps, roles in joined.items()
    )


def _with_new_roles(steps: tuple[Step, ...], roles: tuple[str, ...]) -> tuple[Step, ...]:
    return tuple(
        msgspec.structs.replace(step, roles=roles) if step.kind is ChangeKind.ROLE else step for step in steps
    )
