"""Write the tables of docs/policies.md and docs/security.md from what they list.

With `--check`, only say whether they are current.

A table stands between `<!-- begin NAME -->` and `<!-- end NAME -->`; the rest of the page is prose.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

from authz.api.methods import METHODS
from authz.domain.facts import FACTS
from authz.domain.vocabulary import API_TYPE
from authz.policy.compile import CompiledPolicy
from authz.policy.load import load_policy, policy_directory
from authz.v1 import audit_pb2, authorization_pb2, directory_pb2, policy_pb2, privacy_pb2, watch_pb2

ROOT = Path(__file__).resolve().parent.parent
POLICIES, SECURITY = ROOT / "docs/policies.md", ROOT / "docs/security.md"
ANY = "*"
NEVER = "\N{EN DASH}"


def main() -> int:
    """Write the pages, or compare; 1 when `--check` finds a difference."""
    policy = load_policy(policy_directory())
    tables = {
        POLICIES: {
            "roles": roles_table(policy),
            "types": types_table(policy),
            "matrix": matrix_table(policy),
            "gates": gates_table(policy),
            "locks": locks_table(policy),
            "facts": facts_table(),
        },
        SECURITY: {"calls": calls_table(), "callers": callers_table(policy)},
    }
    outdated = [page for page, by_name in tables.items() if _update(page, by_name)]
    for page in outdated if "--check" in sys.argv[1:] else ():
        print(f"{page.relative_to(ROOT)} is not up to date; run `make docs`")
    return int(bool(outdated) and "--check" in sys.argv[1:])


def _update(page: Path, tables: Mapping[str, str]) -> bool:
    """Write the tables of a page, unless `--check`; whether they differ from what is there."""
    before = after = page.read_text()
    for name, table in tables.items():
        after = _replace(page, after, name, table)
    if before != after and "--check" not in sys.argv[1:]:
        page.write_text(after)
    return before != after


def _replace(file: Path, page: str, name: str, table: str) -> str:
    pattern = re.compile(rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
    match = pattern.search(page)
    if match is None:
        raise SystemExit(f"{file.name} has no region `{name}`")
    return f"{page[: match.end(1)]}{table}\n{page[match.start(2) :]}"


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    names = list(header)
    lines = [names, ["---"] * len(names), *(list(row) for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def roles_table(policy: CompiledPolicy) -> str:
    """Every declared role."""
    rows = (
        (
            f"`{role.name}`",
            role.scope_kind.value,
            str(role.rank),
            "yes" if role.works_in_drafts else "no",
            f"`{role.becomes}`" if role.becomes else "nothing",
        )
        for role in policy.vocabulary.roles.values()
    )
    return _table(("role", "kind of scope", "rank", "works in drafts", "becomes"), rows)


def types_table(policy: CompiledPolicy) -> str:
    """Every declared type with its actions."""
    declared = policy.vocabulary.types.values()
    rows = ((f"`{t.name}`", ", ".join(f"`{action}`" for action in t.actions)) for t in declared)
    return _table(("type", "actions"), rows)


def matrix_table(policy: CompiledPolicy) -> str:
    """A row for each type and action, a column for each role; what a role inherits is written out."""
    callers = callers_of(policy)
    roles = [role for role in policy.vocabulary.roles if role not in callers]
    rows = []
    for declared in policy.vocabulary.resource_types.values():
        for action in declared.actions:
            cells = (_cell(policy, role, declared.name, action) for role in roles)
            rows.append((f"{declared.name} {action}", *cells))
    return _table(("", *(f"`{role}`" for role in roles)), rows)


def callers_of(policy: CompiledPolicy) -> list[str]:
    """The roles that permit calls of the API and nothing else."""
    named = {(rule.role, rule.type == API_TYPE) for rule in policy.rules}
    return [role for role in policy.vocabulary.roles if (role, True) in named and (role, False) not in named]


def calls_table() -> str:
    """Every method of the API with the permission that it needs."""
    modules = (authorization_pb2, directory_pb2, policy_pb2, privacy_pb2, watch_pb2, audit_pb2)
    services = [service for module in modules for service in module.DESCRIPTOR.services_by_name.values()]
    rows = (
        (f"`{service.name}`", f"`{method.name}`", _permission(method.name))
        for service in services
        for method in service.methods
    )
    return _table(("service", "call", "permission"), rows)


def _permission(method: str) -> str:
    _, name = METHODS[method]
    return f"`{name}`" if name else "by what it asks or writes"


def callers_table(policy: CompiledPolicy) -> str:
    """Every permission, and the roles that have it."""
    callers = [*callers_of(policy), "platform_admin"]
    held = {role: policy.permissions_of(frozenset((role,))) for role in callers}
    rows = (
        (f"`{action}`", *("✓" if action in held[role] else NEVER for role in callers))
        for action in policy.vocabulary.types[API_TYPE].actions
    )
    return _table(("", *(f"`{role}`" for role in callers)), rows)


def _cell(policy: CompiledPolicy, role: str, type_name: str, action: str) -> str:
    conditions = [rule.condition for rule in policy.allows_of(role, type_name, action)]
    if not conditions:
        return NEVER
    return "✓" if "" in conditions else "; ".join(conditions)


def facts_table() -> str:
    """Every fact that a condition may name."""
    rows = ((f"`{f.name}`", f.meaning, ", ".join(f"`{each}`" for each in f.computed_from)) for f in FACTS)
    return _table(("fact", "holds when", "computed from"), rows)


def gates_table(policy: CompiledPolicy) -> str:
    """The deny rules, by condition."""
    gates: dict[tuple[str, str, str], list[str]] = {}
    for rule in policy.rules:
        if rule.effect == "deny":
            gates.setdefault((rule.condition, rule.role, rule.type), []).append(rule.action)
    rows = (
        (
            f"`{condition}`",
            "every" if role == ANY else role,
            "every" if kind == ANY else kind,
            ", ".join(actions),
        )
        for (condition, role, kind), actions in gates.items()
    )
    return _table(("when", "role", "type", "denies"), rows)


def locks_table(policy: CompiledPolicy) -> str:
    """The locks, in order."""
    rows = ((_every(lock.role), _every(lock.type), _every(lock.action)) for lock in policy.locks)
    return _table(("role", "type", "action"), rows)


def _every(name: str) -> str:
    return "every" if name == ANY else f"`{name}`"


if __name__ == "__main__":
    sys.exit(main())
