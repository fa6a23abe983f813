"""A role made as a copy of another: the rows to add to a policy file."""

from __future__ import annotations

import msgspec

from authz.domain.errors import ErrorReason, InvalidArgumentError, invalid
from authz.domain.ids import is_name
from authz.domain.vocabulary import RoleDeclaration, suggest
from authz.policy.compile import CompiledPolicy


def copy_role(policy: CompiledPolicy, original: str, name: str, rank: int | None = None) -> str:
    """The lines that give `name` every rule, base role and property that `original` has itself.

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
    return "\n".join(lines) + "\n"


def _declaration(role: RoleDeclaration) -> str:
    drafts = "yes" if role.works_in_drafts else "no"
    return f"role, {role.name}, {role.scope_kind.value}, {role.rank}, {drafts}, {role.becomes}"
