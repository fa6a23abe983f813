"""Two ways to decide that must agree: the compiled rules, and a plain Casbin enforcer over the same files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import casbin

from authz.domain.decisions import Verdict
from authz.domain.ids import Scope, ScopeKind
from authz.policy.compile import CompiledPolicy
from authz.policy.load import MODEL_FILE, POLICY_FILE


def decide(  # noqa: PLR0917  in the order of `enforce`
    policy: CompiledPolicy, roles: frozenset[str], scope: Scope, type_name: str, action: str, facts: int
) -> Verdict:
    """The verdict of the compiled rules on a resource in `scope`."""
    course_id = scope.id if scope.kind is ScopeKind.COURSE else None
    return policy.rules_for(roles, course_id, type_name, action).verdict(facts)


def reference_enforcer(directory: Path) -> Any:
    """An enforcer with the two functions that the model names.

    Its `enforce` takes (roles, scope, type, action, facts): a tuple of names, three strings, and a tuple of
    names.
    """
    enforcer = casbin.Enforcer(str(directory / MODEL_FILE), str(directory / POLICY_FILE))
    links = enforcer.get_role_manager()

    def has_role(roles: Iterable[str], role: str) -> bool:
        return any(role == "*" or links.has_link(held, role) for held in roles)

    def holds(facts: Iterable[str], condition: str) -> bool:
        terms = [term.strip() for term in condition.split("&")] if condition else []
        return all((term[1:] not in facts) if term.startswith("!") else (term in facts) for term in terms)

    enforcer.add_function("has_role", has_role)
    enforcer.add_function("holds", holds)
    return enforcer
