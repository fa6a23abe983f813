"""A role made as a copy of another: the rows to add to a policy file."""

from __future__ import annotations

import msgspec

from authz.domain.errors import ErrorReason, InvalidArgumentError, invalid
from authz.domain.ids import is_name
from authz.domain.toml import parse_toml
from authz.domain.vocabulary import RoleDeclaration, suggest
from authz.policy.compile import CompiledPolicy


class _Never(msgspec.Struct):
    roles: list[str] = []


class _Invariants(msgspec.Struct):
    never: dict[str, _Never] = {}


def copy_role(policy: CompiledPolicy, original: str, name: str, rank: int | None = None) -> str:
    """The lines that give `name` every rule, base role, lock and property that `original` has itself.

    The copy is independent: later changes of one do not reach the other. `rank` is that of the original
    unless it is given. Raises `InvalidArgumentError` if the original is not declared or the copy is.
    """
    roles = policy.vocabulary.roles
    if original not in roles:
        problem = f"unknown role `{original}`; {suggest(original, roles)}"
        raise InvalidArgumentError(ErrorReason.UNKNOWN_ROLE, problem, field="role")
    if not is_name(name):
        raise invalid("role", f"`{name}` is not a name; use a-z, 0-9 and _, beginning with a letter")
    if name in roles:
        raise invalid("role", f"role `{name}` exists; choose another name for the copy")
    copy = msgspec.structs.replace(roles[original], name=name)
    if rank is not None:
        copy = msgspec.structs.replace(copy, rank=rank)
    lines = [f"# {name}: made as a copy of {original}", _declaration(copy)]
    lines += [f"g, {name}, {base}" for base in sorted(policy.inherited[original] - {original})]
    lines += [
        f"p, {name}, {rule.scope}, {rule.type}, {rule.action}, {rule.condition}, {rule.effect}"
        for rule in policy.rules
        if rule.role == original
    ]
    # Or policies of courses could have rules about the copy that they cannot have about its original.
    lines += [str(msgspec.structs.replace(lock, role=name)) for lock in policy.locks if lock.role == original]
    return "\n".join(lines) + "\n"


def invariants_with(text: str, role: str) -> list[str]:
    """The names of the invariants in the text of their file that list the role in `roles`: they do not
    cover its copy. None of a text with faults, which validation names."""
    try:
        tables = msgspec.convert(parse_toml(text), _Invariants).never
    except ValueError:
        return []
    return [name for name, table in tables.items() if role in table.roles]


def _declaration(role: RoleDeclaration) -> str:
    drafts = "yes" if role.works_in_drafts else "no"
    return f"role, {role.name}, {role.scope_kind.value}, {role.rank}, {drafts}, {role.becomes}"
