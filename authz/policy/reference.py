"""A plain Casbin enforcer over the same two files, with which the compiled rules must agree."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import casbin

from authz.policy.load import MODEL_FILE, POLICY_FILE


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
        return not condition or {part.strip() for part in condition.split("&")} <= set(facts)

    enforcer.add_function("has_role", has_role)
    enforcer.add_function("holds", holds)
    return enforcer
