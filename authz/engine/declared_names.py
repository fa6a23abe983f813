"""Tells a query that finds nothing, because nothing is there, from one that never could."""

from __future__ import annotations

from typing import Any

from authz.domain.consistency import Consistency
from authz.domain.errors import ErrorReason, InvalidArgumentError, UnavailableError
from authz.domain.vocabulary import Vocabulary, suggest
from authz.engine.policies import ActiveChecker


async def require_declared(
    active: ActiveChecker, query: Any, consistency: Consistency, deadline: float | None
) -> None:
    """Raise `InvalidArgumentError` if the active policy declares no such role, type or action as a query
    names that has found nothing. What was found may have a name that the policy had once.

    Returns while this server cannot read the policy: that nothing was found is then all that is known.
    """
    names = {name for name in ("role", "type", "resource", "action") if getattr(query, name, None)}
    if not names:
        return
    try:
        _, checker, _ = await active.get(consistency, deadline)
    except UnavailableError:
        return
    vocabulary = checker.policy.vocabulary
    if "role" in names:
        _require_role(query, vocabulary)
    type_name = query.resource.type if "resource" in names else getattr(query, "type", None)
    if type_name:
        vocabulary.require_type(type_name)
    if "action" in names:
        _require_action(query.action, type_name, vocabulary)


def _require_role(query: Any, vocabulary: Vocabulary) -> None:
    if query.scope is not None:
        vocabulary.require_role(query.role, query.scope.kind)
    elif query.role not in vocabulary.roles:
        problem = f"unknown role `{query.role}`; {suggest(query.role, vocabulary.roles)}"
        raise InvalidArgumentError(ErrorReason.UNKNOWN_ROLE, problem, role=query.role)


def _require_action(action: str, type_name: str | None, vocabulary: Vocabulary) -> None:
    if type_name:
        vocabulary.require_action(type_name, action)
        return
    known = {known for _, known in vocabulary.actions}
    if action not in known:
        problem = f"unknown action `{action}`; {suggest(action, known)}"
        raise InvalidArgumentError(ErrorReason.UNKNOWN_ACTION, problem, action=action)
