"""What changes for whom between two policies: cells and conditions, never rows or line numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import TypeAlias

import msgspec

from authz.domain.decisions import Rule
from authz.domain.ids import course_scope
from authz.domain.policy_changes import CellChange, PolicyDiff
from authz.domain.vocabulary import RoleDeclaration, TypeDeclaration
from authz.policy.compile import CompiledPolicy
from authz.policy.condition import Condition, conjunction, parse_condition
from authz.policy.file_changes import file_changes
from authz.policy.locks import Lock
from authz.policy.prove import never_cancelled
from authz.policy.regions import regions, simplest
from authz.policy.rules import ANY, DENY
from authz.policy.situations import closure, situations_with

Clauses: TypeAlias = tuple[frozenset[Condition], frozenset[Condition]]
"""The conditions of the denies and of the allows of a cell."""
NOTHING: Clauses = (frozenset(), frozenset())


def diff_files(
    before: CompiledPolicy,
    after: CompiledPolicy,
    before_files: Mapping[str, str],
    after_files: Mapping[str, str],
    require_not_cancelled: Callable[[], object] = never_cancelled,
) -> PolicyDiff:
    """As `diff`, with what changes in the files that the policies are compiled from: invariants, tests and
    others. Empty if nothing changes but comments and the order of rows."""
    found = diff(before, after, require_not_cancelled)
    return PolicyDiff((*found.declarations, *file_changes(before_files, after_files)), found.cells)


def diff(
    before: CompiledPolicy,
    after: CompiledPolicy,
    require_not_cancelled: Callable[[], object] = never_cancelled,
) -> PolicyDiff:
    """Every change of meaning, those for all courses first. Empty if the two decide everything alike.

    For each cell it calls `require_not_cancelled`, which raises to end the comparison.
    """
    roles = list(dict.fromkeys([*before.vocabulary.roles, *after.vocabulary.roles]))
    pairs = list(dict.fromkeys([*before.vocabulary.actions, *after.vocabulary.actions]))
    if before.platform is after.platform:  # two policies of a course: nothing changes elsewhere
        pairs = []
    everywhere: dict[tuple[str, str, str], CellChange] = {}
    for pair in pairs:
        for role in roles:
            require_not_cancelled()
            change = _changed(before, after, roles, None, (role, *pair))
            if change is not None:
                everywhere[role, *pair] = change
    cells = list(everywhere.values())
    redenied = {
        pair: [role for role in roles if _is_redenied(before, after, (role, *pair))] for pair in pairs
    }
    for course_id in dict.fromkeys([*before.overrides, *after.overrides]):
        for cell in _touched(before, after, course_id, redenied):
            require_not_cancelled()
            change = _changed(before, after, roles, course_id, cell)
            here = msgspec.structs.replace(change, course_id=None) if change is not None else None
            if here != everywhere.get(cell):
                role, type_name, action = cell  # kept here while it changes everywhere else
                unchanged = CellChange(role=role, type=type_name, action=action, course_id=course_id)
                cells.append(change or unchanged)
    return PolicyDiff(tuple(_declarations(before, after)), tuple(cells))


def is_same(
    before: CompiledPolicy,
    after: CompiledPolicy,
    require_not_cancelled: Callable[[], object] = never_cancelled,
) -> bool:
    """As `diff`, whether two policies decide alike, whatever the policies of courses add to them.

    An empty diff is not enough: a deny that stops nobody, because no role has the action, stops those to whom
    a course gives it.
    """
    return not diff(before, after, require_not_cancelled) and all(
        _clauses(before, None, role, pair)[0] == _clauses(after, None, role, pair)[0]
        for pair in before.vocabulary.actions
        for role in before.vocabulary.roles
    )


def _is_redenied(before: CompiledPolicy, after: CompiledPolicy, cell: tuple[str, str, str]) -> bool:
    return _naming_denies(before, None, cell) != _naming_denies(after, None, cell)


def _touched(
    before: CompiledPolicy,
    after: CompiledPolicy,
    course_id: str,
    redenied: Mapping[tuple[str, str], Sequence[str]],
) -> list[tuple[str, str, str]]:
    """The cells in which a change may mean something else in a course: those of which its own rows speak, and
    for the same types and actions those of the roles that are `redenied` everywhere. Such a deny may stop
    nobody but those to whom the course's own rows give the action by another role."""
    books = [policy.overrides.get(course_id) for policy in (before, after)]
    own = [key for book in books if book is not None for index in (book.denies, book.allows) for key in index]
    stopped = [
        (role, type_name, action)
        for _, type_name, action in own
        for role in redenied.get((type_name, action), ())
    ]
    return list(dict.fromkeys([*own, *stopped]))


def _changed(
    before: CompiledPolicy,
    after: CompiledPolicy,
    roles: Sequence[str],
    course_id: str | None,
    cell: tuple[str, str, str],
) -> CellChange | None:
    role, *pair = cell
    old, new = _clauses(before, course_id, role, pair), _clauses(after, course_id, role, pair)
    if old == new:
        return None
    declared = after.vocabulary.roles.get(role) or before.vocabulary.roles[role]
    reachable = _Reachable(declared, pair)
    gains, losses = reachable.words(beyond(old, new)), reachable.words(beyond(new, old))
    blocks: tuple[str, ...] = ()
    unblocks: tuple[str, ...] = ()
    if old[0] != new[0]:  # also of a new role: memberships may have it already
        others = [name for name in roles if name != role]
        allows = [_clauses(after, course_id, other, pair) for other in others]
        named = [_naming_denies(policy, course_id, cell) for policy in (before, after)]
        blocks = reachable.words(_stopped(old[0], named[1], allows))
        unblocks = reachable.words(_stopped(new[0], named[0], allows))
    if not (gains or losses or blocks or unblocks):
        return None
    return CellChange(
        role=role, type=pair[0], action=pair[1], course_id=course_id,
        gains=gains, losses=losses, blocks=blocks, unblocks=unblocks,
    )  # fmt: skip


def opened(
    before: CompiledPolicy, after: CompiledPolicy, require_not_cancelled: Callable[[], object]
) -> Iterator[CellChange]:
    """What a lock or a deny of the platform withholds from the policies of courses, and does no longer after
    a change, as gains: a course may give it then, or has a rule that gives it."""
    roles, pairs = before.vocabulary.roles, {*after.vocabulary.actions}
    places: list[tuple[str | None, Iterable[tuple[str, str, str]]]] = [
        (None, ((role, *pair) for role in roles for pair in before.vocabulary.actions)),
        *((course_id, book.denies) for course_id, book in before.overrides.items()),
    ]
    for course_id, cell in ((course_id, cell) for course_id, cells in places for cell in cells):
        require_not_cancelled()
        role, *pair = cell
        old = _withheld(before, course_id, cell)
        # A later version may declare what is removed again, and holders of a removed role may hold others.
        is_declared = role in after.vocabulary.roles and cell[1:] in pairs
        kept = (_withheld if is_declared else _withheld_if_redeclared)(after, course_id, cell)
        if old <= kept:
            continue
        left = chain.from_iterable(regions(each, [*kept]) for each in old)
        if gains := _Reachable(roles[role], pair).words(left):
            yield CellChange(role=role, type=pair[0], action=pair[1], course_id=course_id, gains=gains)


def _withheld(
    policy: CompiledPolicy, course_id: str | None, cell: tuple[str, str, str]
) -> frozenset[Condition]:
    """When no policy of a course can give what a cell is about."""
    if cell in policy.locked:
        return frozenset({Condition()})
    role, *pair = cell
    return _clauses(policy, course_id, role, pair)[0]


def _withheld_if_redeclared(
    policy: CompiledPolicy, course_id: str | None, cell: tuple[str, str, str]
) -> frozenset[Condition]:
    """The same of a cell that the policy does not declare: its rows that name by `*` what is not declared."""
    role, type_name, action = cell
    names = ((ANY, *policy.inherited.get(role, ())), (ANY, type_name), (ANY, action))
    scopes = (ANY, "" if course_id is None else str(course_scope(course_id)))
    rows = [Condition() for lock in policy.locks if _is_of(lock, names)]
    rows += [
        parse_condition(rule.condition)
        for rule in policy.rules
        if rule.effect == DENY and rule.scope in scopes and _is_of(rule, names)
    ]
    return frozenset(rows)


def _is_of(row: Rule | Lock, names: Sequence[Sequence[str]]) -> bool:
    return all(own in known for own, known in zip((row.role, row.type, row.action), names, strict=True))


def _clauses(policy: CompiledPolicy, course_id: str | None, role: str, pair: Sequence[str]) -> Clauses:
    denies, allows = policy.clauses(course_id, role, pair[0], pair[1])
    return frozenset(c.condition for c in denies), frozenset(c.condition for c in allows)


def _naming_denies(
    policy: CompiledPolicy, course_id: str | None, cell: tuple[str, str, str]
) -> frozenset[Condition]:
    """Those that do not stop every role anyhow."""
    denies, _ = policy.clauses(course_id, *cell)
    return frozenset(clause.condition for clause in denies if clause.rule.role != ANY)


def beyond(one: Clauses, other: Clauses) -> Iterator[Condition]:
    """When `other` allows and `one` does not: none of its allows holds, or one of its denies does."""
    for allow in other[1]:
        yield from regions(allow, [*other[0], *one[1]])
        for deny in one[0]:
            yield from regions(conjunction(allow, deny), [*other[0]])


def _stopped(
    old: Iterable[Condition], new: Iterable[Condition], others: Sequence[Clauses]
) -> Iterator[Condition]:
    """When a new deny stops who is allowed by another role, and no old one did."""
    for deny in new:
        for denies, allows in others:
            for allow in allows:
                yield from regions(conjunction(deny, allow), [*old, *denies])


class _Reachable:
    """Keeps what can be so for who holds a role, and puts it into words."""

    def __init__(self, role: RoleDeclaration, pair: Sequence[str]) -> None:
        self._demands = [
            situation.demands([role]) or Condition(forbidden=situation.impossible)
            for situation in situations_with(role, pair[0], pair[1])
        ]

    def words(self, found: Iterable[Condition]) -> tuple[str, ...]:
        possible = [
            region
            for region in found
            if any(closure(region, demands) is not None for demands in self._demands)
        ]
        return tuple(str(region) for region in simplest(possible))


def _declarations(before: CompiledPolicy, after: CompiledPolicy) -> Iterator[str]:
    old_roles, new_roles = before.vocabulary.roles, after.vocabulary.roles
    for name in dict.fromkeys([*old_roles, *new_roles]):
        yield from _declared("role", name, old_roles.get(name), new_roles.get(name))
        was, now = (tuple(sorted(p.inherited.get(name, frozenset()) - {name})) for p in (before, after))
        if was != now and name in new_roles:
            before_that = f"; before, {_stated(was)}" if name in old_roles else ""
            yield f"role `{name}`: inherits {_stated(now)}{before_that}"
    old_types, new_types = before.vocabulary.types, after.vocabulary.types
    for name in dict.fromkeys([*old_types, *new_types]):
        yield from _declared("type", name, old_types.get(name), new_types.get(name))
    old_locks, new_locks = (dict.fromkeys(map(str, policy.locks)) for policy in (before, after))
    for lock in dict.fromkeys([*old_locks, *new_locks]):
        if lock not in new_locks or lock not in old_locks:
            yield f"`{lock}` is {'removed' if lock in old_locks else 'new'}"


def _declared(
    what: str,
    name: str,
    old: RoleDeclaration | TypeDeclaration | None,
    new: RoleDeclaration | TypeDeclaration | None,
) -> Iterator[str]:
    if old is None or new is None:
        yield f"{what} `{name}` is {'new' if old is None else 'removed'}"
        return
    for field in old.__struct_fields__:
        was, now = getattr(old, field), getattr(new, field)
        if field == "actions":
            yield from (f"{what} `{name}` has the new action `{each}`" for each in now if each not in was)
            yield from (f"{what} `{name}` has no action `{each}` any more" for each in was if each not in now)
        elif was != now:
            yield f"{what} `{name}`: {field.replace('_', ' ')} {_stated(now)}; before, {_stated(was)}"


def _stated(value: object) -> str:
    """A field of a declaration, as its row states it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return ", ".join(f"`{each}`" for each in value) or "nothing"
    return f"`{value}`" if value != "" else "nothing"
