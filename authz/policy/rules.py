"""The `p` rows of a policy: every fault of a rule, of its names and of its condition."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import combinations, islice

from authz.domain.cache import cached_if_short
from authz.domain.decisions import Rule
from authz.domain.facts import COURSE_ARCHIVED, FACTS_BY_NAME
from authz.domain.ids import MAX_ID_LENGTH, ScopeKind
from authz.domain.vocabulary import API_TYPE, RoleDeclaration, Vocabulary, suggest
from authz.policy.condition import Condition, condition_terms, parse_condition
from authz.policy.declarations import has_fields
from authz.policy.rows import MAX_FAULTS, Faults, Row
from authz.policy.situations import closure, situations_of, situations_with

ANY = "*"
ALLOW, DENY = "allow", "deny"
_EFFECTS = (ALLOW, DENY)
_FIELDS = ("role", "scope", "type", "action", "condition", "effect")
_MAX_CACHED = 1 << 14
"""Combinations of a role, a condition, a type and an action: those of a large policy."""
_COURSE_SCOPE = re.compile(rf"course:[A-Za-z0-9._~@+=|/:\-]{{1,{MAX_ID_LENGTH}}}")


def read_rules(
    rows: list[Row],
    vocabulary: Vocabulary,
    inherited: Mapping[str, frozenset[str]],
    faults: Faults,
    *,
    is_published: bool = False,
) -> tuple[Rule, ...]:
    """The rules in order. `inherited` gives for each role all roles whose rules it has.

    Of a published version, whether each rule can match is not asked again.
    """
    rules: list[Rule] = []
    seen: dict[tuple[object, ...], int] = {}
    for row in rows:
        if row.kind != "p" or not has_fields(row, _FIELDS, faults):
            continue
        before = len(faults)
        _check_names(row, vocabulary, faults)
        role, scope, type_name, action, condition, effect = row.texts
        for problem in _condition_problems(condition, effect == ALLOW):
            faults.at(row, 5, problem)
        rule = Rule(role, scope, type_name, action, condition, effect, f"{row.file}:{row.line}")
        is_known = len(faults) == before and faults.misdeclared.isdisjoint((role, type_name))
        if is_known and not is_published:
            _check_can_match(row, rule, vocabulary, inherited, faults)
        first = seen.setdefault(_meaning(rule), row.line)
        if first != row.line:
            faults.at(row, 0, f"repeats line {first}; remove one of the two")
        rules.append(rule)
    return tuple(rules)


def inheritors_of(role: str, inherited: Mapping[str, frozenset[str]]) -> tuple[str, ...]:
    """The roles that have the rules of a role, itself among them."""
    return tuple([name for name, bases in inherited.items() if role == ANY or role in bases])


def targets_of(type_name: str, action: str, vocabulary: Vocabulary) -> Iterator[tuple[str, str]]:
    """Each type and action that a row names, directly or by `*`."""
    for name in vocabulary.types if type_name == ANY else (type_name,):
        for known in vocabulary.types[name].actions:
            if action in (ANY, known):
                yield name, known


def _meaning(rule: Rule) -> tuple[object, ...]:
    """The fields, with sorted facts: two rows with the same meaning are duplicates."""
    return rule.role, rule.scope, rule.type, rule.action, _sorted_terms(rule.condition), rule.effect


@cached_if_short
def _sorted_terms(condition: str) -> tuple[tuple[str, bool], ...]:
    return tuple(sorted(condition_terms(condition)))


_SEVERAL = re.compile(r"[\s|]")
"""In what should be one fact."""


def check_target(row: Row, places: tuple[int, int, int], vocabulary: Vocabulary, faults: Faults) -> None:
    """Record a fault for each unknown name; `places` are those of the role, the type and the action."""
    fields, known_types = row.fields, vocabulary.types
    role, type_name, action = fields[places[0]], fields[places[1]], fields[places[2]]
    if role != ANY and role not in vocabulary.roles:
        faults.unknown(row, places[0], "role", vocabulary.roles)
    declared = known_types.get(type_name)
    if declared is None and type_name != ANY:
        faults.unknown(row, places[1], "type", known_types)
    elif action != ANY and (declared is None or action not in declared.actions):
        types = known_types.values() if declared is None else (declared,)
        actions = {known for each in types for known in each.actions}
        if action not in actions:
            on = "any type" if type_name == ANY else type_name
            faults.at(row, places[2], f"unknown action `{action}` on {on}; {suggest(action, actions)}")


def _check_names(row: Row, vocabulary: Vocabulary, faults: Faults) -> None:
    check_target(row, (1, 3, 4), vocabulary, faults)
    scope, effect = row.texts[1], row.texts[5]
    if scope != ANY and not _COURSE_SCOPE.fullmatch(scope):
        faults.at(row, 2, f"scope `{scope}` is neither `*` nor `course:<id>`")
    if effect not in _EFFECTS:
        remedy = "a comment needs its own line" if "#" in effect else suggest(effect.lower(), _EFFECTS)
        faults.at(row, 6, f"unknown effect `{effect}`; {remedy}")


@cached_if_short
def _condition_problems(condition: str, is_allow: bool) -> tuple[str, ...]:
    """The first `MAX_FAULTS` faults of a condition in an allow or deny row."""
    return tuple(islice(_find_problems(condition_terms(condition), is_allow), MAX_FAULTS))


def _find_problems(terms: Sequence[tuple[str, bool]], is_allow: bool) -> Iterator[str]:
    names = [name for name, _ in terms]
    for name in dict.fromkeys(names):
        if name not in FACTS_BY_NAME:
            yield unknown_fact(name, 'for "or", write two rows')
        elif names.count(name) > 1:
            yield f"names the fact `{name}` twice; remove one"
        elif (name, True) in terms and is_allow:
            yield (
                f"negates `{name}` in an allow row, so a fact that cannot be established would allow; "
                f"remove `!{name}`, and write a deny row for `{name}`"
            )


def unknown_fact(name: str, alternatives: str) -> str:
    """What is wrong with a name that is no fact, and the remedy; `alternatives` says how to write "or"."""
    if not name:
        return "has an empty fact; join facts with one `&`"
    if _SEVERAL.search(name):
        return f"`{name}` is no fact; join facts with `&`; {alternatives}"
    return f"unknown fact `{name}`; {suggest(name, FACTS_BY_NAME)}"


def _check_can_match(
    row: Row, rule: Rule, vocabulary: Vocabulary, inherited: Mapping[str, frozenset[str]], faults: Faults
) -> None:
    if rule.type == API_TYPE and not _check_caller_rule(row, rule, vocabulary, faults):
        return
    condition = parse_condition(rule.condition)
    if closure(condition) is None:
        terms = [part.strip() for part in rule.condition.split("&")]
        pair = next(pair for pair in combinations(terms, 2) if closure(*map(parse_condition, pair)) is None)
        faults.at(row, 5, f"`{pair[0]}` and `{pair[1]}` never hold together; remove one, or write two rows")
        return
    targets = list(targets_of(rule.type, rule.action, vocabulary))
    for term in rule.condition.split("&") if rule.condition else ():
        fact = parse_condition(term)
        if not any(_can_hold(fact, *target) for target in targets):
            what = f"`{rule.action}` on {'any type' if rule.type == ANY else rule.type}"
            faults.at(row, 5, f"`{term.strip()}` never holds for {what}; remove the fact, or the row")
            return
    if not any(_can_hold(condition, *target) for target in targets):
        faults.at(row, 5, f"`{rule.condition}` never holds for such a type and action; remove the row")
        return
    if rule.role != ANY:
        names = (rule.role, *inheritors_of(rule.role, inherited))
        holders = [vocabulary.roles[name] for name in dict.fromkeys(names)]
        _check_role_can_match(row, rule, faults, holders=holders, targets=targets)


def _check_role_can_match(
    row: Row, rule: Rule, faults: Faults, *, holders: list[RoleDeclaration], targets: list[tuple[str, str]]
) -> None:
    """`holders` are the role of the rule, and then those that inherit it."""
    role, condition = holders[0], parse_condition(rule.condition)
    if condition.required & COURSE_ARCHIVED and not any(holder.is_kept for holder in holders):
        problem = f"`{rule.role}` is `{role.becomes}` once the course is archived"
        faults.at(row, 1, f"{problem}; name `{role.becomes}`")
        return
    pairs = [(holder, target) for holder in holders for target in targets]
    where = f"`{rule.action}` on {'any type' if rule.type == ANY else rule.type}"
    if not any(situations_with(holder, *target) for holder, target in pairs):
        faults.at(row, 1, f"nobody can have the role `{rule.role}` where {where} is asked; name another role")
    elif not any(_can_hold_for(holder, condition, *target) for holder, target in pairs):
        problem = f"`{rule.condition}` never holds for `{rule.role}` and {where}"
        faults.at(row, 5, f"{problem}; remove a fact, or the row")


def _check_caller_rule(row: Row, rule: Rule, vocabulary: Vocabulary, faults: Faults) -> bool:
    """Whether a caller can have the right of a rule: it has roles on the platform only."""
    role = vocabulary.roles.get(rule.role)
    if role is not None and role.scope_kind is not ScopeKind.PLATFORM:
        problem = f"`{role.name}` is a role in a {role.scope_kind.value}"
        faults.at(row, 1, f"{problem}; a caller has roles on the platform, so name one of those")
        return False
    if rule.scope != ANY:
        faults.at(row, 2, f"scope `{rule.scope}` is a course, and a call is made on the platform; write `*`")
        return False
    return True


@lru_cache(_MAX_CACHED)
def _can_hold(condition: Condition, type_name: str, action: str) -> bool:
    return any(
        closure(condition, Condition(forbidden=situation.impossible)) is not None
        for situation in situations_of(type_name, action)
    )


@lru_cache(_MAX_CACHED)
def _can_hold_for(role: RoleDeclaration, condition: Condition, type_name: str, action: str) -> bool:
    known = (situation.always_with(role) for situation in situations_of(type_name, action))
    return any(each is not None and closure(condition, each) is not None for each in known)
