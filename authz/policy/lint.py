"""What is legal in a policy, and surprising: rows that do nothing, and rows that do more than they seem."""

from __future__ import annotations

from collections.abc import Iterator

from authz.domain.decisions import COURSE_TYPE, MANAGE_MEMBERS, Rule
from authz.domain.errors import PolicyWarning
from authz.domain.facts import SHARED
from authz.domain.ids import ScopeKind, parse_scope
from authz.policy.compile import CompiledPolicy
from authz.policy.condition import Condition, conjunction
from authz.policy.load import POLICY_FILE
from authz.policy.rules import ANY, DENY, inheritors_of, targets_of
from authz.policy.search import find_facts
from authz.policy.situations import closure, situations_of

_READ = "read"
_WORK_ON_WHAT_IS_SEEN = ("moderate", "update", "delete", "share", "publish", "export")


def lint_course(policy: CompiledPolicy, platform: CompiledPolicy) -> tuple[PolicyWarning, ...]:
    """The warnings of the rules that a course has in addition to those of the platform, in order."""
    own = enumerate(policy.own_rules, len(platform.rules))
    return tuple(warning for position, rule in own for warning in _of_rule(policy, position, rule))


def lint(policy: CompiledPolicy) -> tuple[PolicyWarning, ...]:
    """Every warning: those of the rules in the order of the file, then those of the roles."""
    found = [
        warning for position, rule in enumerate(policy.rules) for warning in _of_rule(policy, position, rule)
    ]
    return (*found, *_exceptions(policy), *_ranks(policy))


def _of_rule(policy: CompiledPolicy, position: int, rule: Rule) -> Iterator[PolicyWarning]:
    for text in _problems(policy, position, rule):
        yield PolicyWarning(rule.source, text, rule.role)


def _problems(policy: CompiledPolicy, position: int, rule: Rule) -> Iterator[str]:
    inheritors = inheritors_of(rule.role, policy.inherited)
    course_id = None if rule.scope == ANY else parse_scope(rule.scope).id
    cells = [
        Cell(policy, course_id, role, type_name, action)
        for type_name, action in targets_of(rule.type, rule.action, policy.vocabulary)
        for role in inheritors
    ]
    wider = {cell.wider_than(position, rule.effect) for cell in cells}
    first = next(iter(wider))
    if first is not None and None not in wider:
        yield f"changes nothing: {first.source} matches whenever it does; remove one"
        return
    if rule.effect == DENY:
        if rule.role != ANY or course_id is not None:
            yield from _shares_taken(position, cells)
        if rule.role != ANY:
            yield from _given_back(position, cells)
        return
    if not any(True for cell in cells for _ in cell.decided_by(position)):
        stopping = frozenset.intersection(*(cell.stopped_by(position) for cell in cells))
        deny = f"the deny row {min(stopping)}" if stopping else "a deny row"
        yield f"never allows: {deny} matches whenever it does; remove one of them"
    elif rule.action in _WORK_ON_WHAT_IS_SEEN and rule.type != COURSE_TYPE:
        yield from _unseen(position, rule, cells)


class Cell:
    """What the rules for one role say about one action on one type, in one course or in all others."""

    def __init__(
        self, policy: CompiledPolicy, course_id: str | None, role: str, type_name: str, action: str
    ) -> None:
        self.role = policy.vocabulary.roles[role]
        self.type_name, self.action = type_name, action
        self.denies, self.allows = policy.clauses(course_id, role, type_name, action)
        self._policy, self._course_id = policy, course_id

    def wider_than(self, position: int, effect: str) -> Rule | None:
        """Another rule of the effect that matches whenever the one at a position does."""
        clauses = self.denies if effect == DENY else self.allows
        own = next((clause for clause in clauses if clause.position == position), None)
        known = None if own is None else closure(own.condition)
        if own is None or known is None:
            return None
        for other in clauses:
            if other is own or not other.condition.follows_from(known):
                continue
            back = closure(other.condition)
            is_same = back is not None and own.condition.follows_from(back)
            # Of two that match the same, the later is the one too many.
            if not is_same or other.position < position:
                return other.rule
        return None

    def stopped_by(self, position: int) -> frozenset[str]:
        """The places of the denies that match whenever the allow at a position does."""
        known = closure(*(clause.condition for clause in self.allows if clause.position == position))
        return frozenset(
            clause.rule.source
            for clause in self.denies
            if known is not None and closure(known, clause.condition) == known
        )

    def decided_by(self, position: int) -> Iterator[Condition]:
        """Facts for which the allow at a position decides, one for each situation in which it can."""
        own = [clause.condition for clause in self.allows if clause.position == position]
        yield from self._undenied(own, [deny.condition for deny in self.denies])

    def shared_and_denied_by(self, position: int) -> Rule | None:
        """An allow that needs a share and that the deny at a position stops, where no other deny would."""
        own = [clause.condition for clause in self.denies if clause.position == position]
        others = [clause.condition for clause in self.denies if clause.position != position]
        for allow in self.allows:
            if allow.condition.required & SHARED and any(self._undenied([*own, allow.condition], others)):
                return allow.rule
        return None

    def given_back(self, position: int) -> Cell | None:
        """The cell of what the role becomes, if that allows what the deny at a position stops: who loses it
        in a course has it back when the course is over."""
        if not self.role.becomes:
            return None
        denied = [clause.condition for clause in self.denies if clause.position == position]
        later = Cell(self._policy, self._course_id, self.role.becomes, self.type_name, self.action)
        denies = [deny.condition for deny in later.denies]
        has_it = any(
            found for allow in later.allows for found in later._undenied([*denied, allow.condition], denies)
        )
        return later if has_it else None

    def unseen(self, position: int) -> Condition | None:
        """Facts for which the allow at a position decides, and the resource cannot be read."""
        own = [clause.condition for clause in self.allows if clause.position == position]
        denies = [deny.condition for deny in self.denies]
        read_denies, read_allows = self._policy.clauses(
            self._course_id, self.role.name, self.type_name, _READ
        )
        readable = [allow.condition for allow in read_allows]
        ways = [self._undenied(own, [*denies, *readable])]
        ways += [self._undenied([*own, deny.condition], denies) for deny in read_denies]
        return next((found for way in ways for found in way), None)

    def _undenied(self, conditions: list[Condition], denies: list[Condition]) -> Iterator[Condition]:
        for situation in situations_of(self.type_name, self.action):
            demands = situation.demands([self.role])
            if demands is not None:
                found = find_facts(conjunction(demands, *conditions), denies)
                if isinstance(found, Condition):
                    yield found


def _shares_taken(position: int, cells: list[Cell]) -> Iterator[str]:
    for cell in cells:
        taken = cell.shared_and_denied_by(position)
        if taken is not None:
            yield (
                f"also takes what a share gives (`{cell.action}` on {cell.type_name}, {taken.source}); "
                "add `& !shared_view` to keep it"
            )
            return


def _given_back(position: int, cells: list[Cell]) -> Iterator[str]:
    for cell in cells:
        later = cell.given_back(position)
        if later is not None:
            yield (
                f"ends with the course: `{cell.role.name}` becomes `{later.role.name}`, which has"
                f" {cell.action} on {cell.type_name}; add such a row for `{later.role.name}`, too"
            )
            return


def _unseen(position: int, rule: Rule, cells: list[Cell]) -> Iterator[str]:
    for cell in cells:
        unseen = cell.unseen(position)
        if unseen is not None:
            when = f" when `{Condition(unseen.required)}`" if unseen.required else ""
            yield (
                f"`{cell.role.name}` has {rule.action} on {cell.type_name}, but not read{when}; "
                "add a row for `read`, or a condition"
            )
            return


def _exceptions(policy: CompiledPolicy) -> Iterator[PolicyWarning]:
    """Of the rows about each course in the platform's file, the first."""
    first: dict[str, Rule] = {}
    for rule in policy.rules:
        if rule.scope != ANY and rule.source.startswith(POLICY_FILE):
            first.setdefault(rule.scope, rule)
    for rule in first.values():
        yield PolicyWarning(
            rule.source,
            "is an exception for one course, which that course cannot change, and which a new course with its"
            " id has, too; what a course decides for itself is in a policy of its own:"
            " `authz policy apply --course`",
        )


def _ranks(policy: CompiledPolicy) -> Iterator[PolicyWarning]:
    roles = policy.vocabulary.roles
    managers = {
        role.name
        for role in roles.values()
        if role.scope_kind is not ScopeKind.PLATFORM
        and policy.allows_of(role.name, role.scope_kind.value, MANAGE_MEMBERS)
    }
    for role in roles.values():
        above = [base for base in sorted(policy.inherited[role.name]) if roles[base].rank > role.rank]
        if above:
            yield PolicyWarning(
                f"role `{role.name}`",
                f"has every right of `{above[0]}`, whose rank is higher; "
                "raise its rank, or inherit another role",
            )
        if role.scope_kind is ScopeKind.PLATFORM or role.name in managers:
            continue
        givers = [
            name
            for name in managers
            if roles[name].rank > role.rank and roles[name].scope_kind in (ScopeKind.COURSE, role.scope_kind)
        ]
        if not givers:
            yield PolicyWarning(
                f"role `{role.name}`",
                f"no role with `{MANAGE_MEMBERS}` has a rank above {role.rank}, so nobody can give it; "
                "lower its rank",
            )
