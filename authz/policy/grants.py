"""What a change of the policy gives or takes that its author may not give or take."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator

from authz.domain.policy_changes import CellChange
from authz.policy.compile import CompiledPolicy
from authz.policy.condition import conjunction, parse_condition
from authz.policy.diff import diff, opened
from authz.policy.prove import never_cancelled
from authz.policy.regions import regions
from authz.policy.situations import closure


def excesses(
    before: CompiledPolicy,
    after: CompiledPolicy,
    *,
    roles: Collection[str],
    rank: int,
    platform: CompiledPolicy | None = None,
    require_not_cancelled: Callable[[], object] = never_cancelled,
) -> Iterator[str]:
    """In words, each thing that an author with these roles and this rank may not give or take.

    That is an action that the roles do not have, before the change, under the same conditions, also if only
    policies of courses can give it once a lock or a deny is gone; anything to a role of this rank or above;
    how any role is declared and what it inherits, by which others may give and take roles, and get what the
    policies of courses give; and anything from a role above this rank. From who holds a role of this rank, no
    deny that names another role takes anything.
    With `platform`, the policies are of a course: what the platform's policy gives there by itself is not its
    author's gift, so it may be given back to roles below. From a role of this rank nothing is taken there:
    the author could not give it back. `require_not_cancelled` as for `diff`.
    """
    declared = dict(before.vocabulary.roles) | dict(after.vocabulary.roles)
    for name in declared:
        yield from _in_declaration(before, after, name, rank)
    beyond = None if platform is None else set(_given(platform, after, require_not_cancelled))
    for change in diff(before, after, require_not_cancelled).cells:
        given, what = [*change.gains, *change.unblocks], f"{change.action} on {change.type}"
        its_rank = declared[change.role].rank
        if its_rank >= rank:
            if given or platform is not None or its_rank > rank:
                how = f"gives {what} to" if given else f"takes {what} from"
                yield f"{how} `{change.role}`, whose rank is not below {rank}"
            continue
        if platform is None:
            yield from _stopped(after, change, [name for name in declared if declared[name].rank >= rank])
        if beyond is not None and _cell(change) not in beyond:
            continue
        if lacking := _lacking(before, roles, change, given):
            yield f"gives {what} to `{change.role}`, when {lacking}"
    if platform is None:
        yield from _to_courses(before, after, roles, rank, require_not_cancelled)


def _in_declaration(before: CompiledPolicy, after: CompiledPolicy, name: str, rank: int) -> Iterator[str]:
    """What an author may not change about the declaration of a role."""
    old, new = before.vocabulary.roles.get(name), after.vocabulary.roles.get(name)
    own = frozenset((name,))
    bases = [policy.inherited.get(name, own) for policy in (before, after)]
    if old != new and max(role.rank for role in (old, new) if role is not None) >= rank:
        yield f"changes the role `{name}`, whose rank is not below {rank}"
    elif old is None and new is not None and (new.becomes or bases[1] != own):
        yield f"lets the new role `{name}` become or inherit another"
    elif old is not None and new is not None and (old, bases[0]) != (new, bases[1]):
        yield f"changes how `{name}` is declared, or what it inherits"


def _to_courses(
    before: CompiledPolicy,
    after: CompiledPolicy,
    roles: Collection[str],
    rank: int,
    require_not_cancelled: Callable[[], object],
) -> Iterator[str]:
    """What an author may not let the policies of courses give."""
    for change in opened(before, after, require_not_cancelled):
        what = f"lets courses give {change.action} on {change.type} to `{change.role}`"
        if before.vocabulary.roles[change.role].rank >= rank:
            yield f"{what}, whose rank is not below {rank}"
        elif lacking := _lacking(before, roles, change, change.gains):
            yield f"{what}, when {lacking}"


def _stopped(policy: CompiledPolicy, change: CellChange, roles: Collection[str]) -> Iterator[str]:
    """What a deny that names a role below takes from who holds one of these roles, too."""
    blocks = [parse_condition(when) for when in change.blocks]
    for name in roles:
        _, allows = policy.clauses(change.course_id, name, change.type, change.action)
        found = (closure(conjunction(each, allow.condition)) for each in blocks for allow in allows)
        if any(each is not None for each in found):
            yield f"denies {change.action} on {change.type} to each `{name}` who is also `{change.role}`"


def _given(
    before: CompiledPolicy, after: CompiledPolicy, require_not_cancelled: Callable[[], object]
) -> Iterator[tuple[str, str, str]]:
    """The cells in which a course gives more than the platform. It frees nobody of a deny of the platform,
    since its own rows come in addition."""
    for change in diff(before, after, require_not_cancelled).cells:
        if change.gains:
            yield _cell(change)


def _cell(change: CellChange) -> tuple[str, str, str]:
    return change.role, change.type, change.action


def _lacking(policy: CompiledPolicy, roles: Collection[str], change: CellChange, given: Iterable[str]) -> str:
    """The conditions, in words, under which the roles do not have what is given; empty if there is none."""
    return " or when ".join(each or "always" for each in given if not _have(policy, roles, change, each))


def _have(policy: CompiledPolicy, roles: Collection[str], change: CellChange, when: str) -> bool:
    """Whether the roles together are allowed the action wherever the condition holds."""
    clauses = [policy.clauses(change.course_id, role, change.type, change.action) for role in roles]
    denies = [clause.condition for denied, _ in clauses for clause in denied]
    allows = [clause.condition for _, allowed in clauses for clause in allowed]
    condition = parse_condition(when)
    if any(closure(conjunction(condition, deny)) is not None for deny in denies):
        return False
    return next(iter(regions(condition, allows)), None) is None
