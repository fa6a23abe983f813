"""The `role`, `type` and `g` rows of a policy: the declared names, and inheritance between roles."""

from __future__ import annotations

from collections.abc import Collection

from authz.domain.ids import ScopeKind, is_name
from authz.domain.vocabulary import MAX_RANK, RoleDeclaration, TypeDeclaration, Vocabulary, suggest
from authz.policy.rows import Faults, Row

_YES_NO = {"yes": True, "no": False}
_SCOPE_KINDS = {kind.value: kind for kind in ScopeKind}


def read_vocabulary(rows: list[Row], faults: Faults) -> Vocabulary:
    """The declared roles and types. Faulty rows are skipped, and their names noted."""
    roles: dict[str, tuple[RoleDeclaration, Row]] = {}
    types: dict[str, TypeDeclaration] = {}
    for row in rows:
        kind = row.kind
        if kind == "role":
            role = _read_role(row, faults)
            if role is None:
                faults.skip_declaration(row)
            elif _is_new(role.name, roles, row, faults):
                roles[role.name] = (role, row)
        elif kind == "type":
            declared = _read_type(row, faults)
            if declared is None:
                faults.skip_declaration(row)
            elif _is_new(declared.name, types, row, faults):
                types[declared.name] = declared
    known = {name: role for name, (role, _) in roles.items()}
    faults.misdeclared -= known.keys() | types.keys()
    for role, row in roles.values():
        _check_becomes(role, row, known, faults)
    return Vocabulary(known, types)


def read_inheritance(rows: list[Row], vocabulary: Vocabulary, faults: Faults) -> dict[str, frozenset[str]]:
    """For each role, the roles whose rules it has: itself and all that it inherits from."""
    parents: dict[str, set[str]] = {name: set() for name in vocabulary.roles}
    for row in rows:
        if row.kind == "g" and _check_link(row, vocabulary, parents, faults):
            role, base = row.texts
            parents[role].add(base)
    return {name: _reach(name, parents) for name in parents}


def _reach(name: str, parents: dict[str, set[str]]) -> frozenset[str]:
    seen: set[str] = set()
    todo = [name]
    while todo:
        role = todo.pop()
        if role not in seen:
            seen.add(role)
            todo.extend(parents[role])
    return frozenset(seen)


def _check_link(row: Row, vocabulary: Vocabulary, parents: dict[str, set[str]], faults: Faults) -> bool:
    if not has_fields(row, ("role", "base role"), faults):
        return False
    for place, name in enumerate(row.texts, 1):
        if name not in vocabulary.roles:
            faults.unknown(row, place, "role", vocabulary.roles)
            return False
    role, base = row.texts
    if vocabulary.roles[role].scope_kind is not vocabulary.roles[base].scope_kind:
        faults.at(row, 2, f"`{role}` cannot inherit `{base}`: their kinds of scope differ")
        return False
    if base in parents[role]:
        faults.at(row, 0, f"`{role}` inherits `{base}` already; remove one of the lines")
        return False
    if role in _reach(base, parents):
        faults.at(row, 2, f"`{role}` and `{base}` would inherit each other; remove one of the links")
        return False
    return True


_MAY_BE_EMPTY = ("condition", "becomes")


def has_fields(row: Row, names: tuple[str, ...], faults: Faults) -> bool:
    """Whether a row has exactly these fields after its kind, none empty that needs a value; if not, records
    each fault."""
    texts = row.texts
    if len(texts) == len(names) and all(texts):
        return True
    if len(texts) != len(names):
        found = "1 field" if len(texts) == 1 else f"{len(texts)} fields"
        faults.at(row, len(names) + 1, f"`{row.kind}` has {found}; it needs {len(names)}: {', '.join(names)}")
        return False
    empty = [
        place for place, text in enumerate(texts, 1) if not text and names[place - 1] not in _MAY_BE_EMPTY
    ]
    for place in empty:
        faults.at(row, place, f"the field `{names[place - 1]}` is empty; fill it in")
    return not empty


def _is_new(name: str, known: Collection[str], row: Row, faults: Faults) -> bool:
    if name in known:
        faults.at(row, 1, f"`{name}` is declared twice; remove one of the lines")
        return False
    return True


def _read_role(row: Row, faults: Faults) -> RoleDeclaration | None:
    if not has_fields(row, ("name", "kind of scope", "rank", "works in drafts", "becomes"), faults):
        return None
    name, kind, rank, drafts, becomes = row.texts
    before = len(faults)
    if not is_name(name):
        faults.at(row, 1, f"`{name}` is not a name; use a-z, 0-9 and _, beginning with a letter")
    if kind not in _SCOPE_KINDS:
        faults.at(row, 2, f"unknown kind of scope `{kind}`; {suggest(kind, _SCOPE_KINDS)}")
    if not (rank.isascii() and rank.isdigit() and len(rank) <= len(str(MAX_RANK)) and int(rank) <= MAX_RANK):
        faults.at(row, 3, f"rank `{rank}` is not a number from 0 to {MAX_RANK}")
    if drafts not in _YES_NO:
        faults.at(row, 4, f"`{drafts}` is neither `yes` nor `no`")
    if len(faults) > before:
        return None
    return RoleDeclaration(name, _SCOPE_KINDS[kind], int(rank), _YES_NO[drafts], becomes)


def _check_becomes(
    role: RoleDeclaration, row: Row, known: dict[str, RoleDeclaration], faults: Faults
) -> None:
    if not role.becomes:
        return
    after = known.get(role.becomes)
    if after is None:
        faults.unknown(row, 5, "role", known)
    elif after.scope_kind is not role.scope_kind:
        faults.at(row, 5, f"`{role.name}` cannot become `{after.name}`: their kinds of scope differ")
    elif after.rank > role.rank:
        problem = f"`{role.name}` cannot become `{after.name}`, whose rank is higher"
        faults.at(
            row, 5, f"{problem}: who may give it would give both; name a role of no higher rank, or none"
        )
    elif after.becomes:
        faults.at(row, 5, f"`{role.name}` becomes `{after.name}`, which becomes another; name the last one")


def _read_type(row: Row, faults: Faults) -> TypeDeclaration | None:
    if not has_fields(row, ("name", "actions joined by |"), faults):
        return None
    name, joined = row.texts
    actions = tuple(action.strip() for action in joined.split("|"))
    if not is_name(name):
        faults.at(row, 1, f"`{name}` is not a name; use a-z, 0-9 and _, beginning with a letter")
        return None
    for action in actions:
        if not action:
            faults.at(row, 2, f"`{joined}` has an empty action; remove a `|` too many")
            return None
        if not is_name(action):
            faults.at(row, 2, f"`{action}` is not the name of an action; join names by `|`")
            return None
    if len(set(actions)) != len(actions):
        faults.at(row, 2, "an action is listed twice; remove one")
        return None
    return TypeDeclaration(name, actions)
