"""Which permission the content of a call needs, and which callers have it by the active policy.

A permission is an action of the type `api`; `authz.api.methods` has that of each method. A call for which
the policy declares none is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

from authz.access.permission import CallerRights, Permissions
from authz.access.principal import Principal
from authz.api.call import Call
from authz.domain.consistency import MINIMIZE_LATENCY
from authz.domain.decisions import AI_PROCESS, STRUCTURAL_TYPES
from authz.domain.entities import (
    KINDS,
    AccessTokenKey,
    AccountKey,
    EntityKind,
    Key,
    MembershipKey,
    ShareKey,
    kind_of,
)
from authz.domain.errors import PermissionDeniedError
from authz.domain.facts import PURPOSE_AI_RESPONSE
from authz.domain.ids import PLATFORM, ResourceRef, Scope, ScopeKind, Subject, SubjectType
from authz.domain.vocabulary import API_TYPE, GRANT_ROLES, Vocabulary
from authz.engine.policies import ActiveChecker
from authz.engine.rights import PersonRights

CHECK = "check"
CHECK_AI_PROCESS = "check_ai_process"
LEARN_REASONS = "learn_reasons"
APPLY_POLICY = "apply_policy"
ERASE_SUBJECT = "erase_subject"

_WATCHED_BY_ALL = (
    EntityKind.POLICY_VERSION,
    EntityKind.POLICY_ACTIVATION,
    EntityKind.ERASURE,
    EntityKind.RETENTION_RULE,
)
"""The kinds that `watch` alone lets a caller read. Each other kind needs a permission of its own."""


def require_to_ask(call: Call, action: str, purpose: str) -> None:
    """Raise `PermissionDeniedError` unless the caller may ask about an action for a purpose."""
    if _is_for_ai(action, purpose):
        call.require(CHECK_AI_PROCESS)
    elif call.rights.has(CHECK_AI_PROCESS) and not call.rights.has(CHECK):
        raise PermissionDeniedError(
            f"`{call.rights.holder}` may ask only about the action `{AI_PROCESS}` with the purpose"
            f" `{PURPOSE_AI_RESPONSE}`; set both in each question",
            method=call.method.name,
            type=API_TYPE,
            permission=CHECK,
        )
    else:
        call.require(CHECK)


def require_to_learn(call: Call, action: str, purpose: str) -> None:
    """Raise `PermissionDeniedError` for an answer, such as a list, that says more about an action for a
    purpose than the caller may ask."""
    if _is_for_ai(action, purpose):
        call.require(CHECK_AI_PROCESS)


def require_to_learn_all(call: Call, purpose: str) -> None:
    """As `require_to_learn`, for an answer about every action."""
    require_to_learn(call, AI_PROCESS, purpose)


def _is_for_ai(action: str, purpose: str) -> bool:
    return action == AI_PROCESS and purpose == PURPOSE_AI_RESPONSE


def require_to_write(call: Call, keys: Iterable[Key], deleted: Iterable[Key] = ()) -> None:
    """Raise `PermissionDeniedError` unless the caller may write every record with one of these keys, and
    delete those that are `deleted`."""
    needed = [(_need_to_write(key), False) for key in keys] + [(_need_to_write(key), True) for key in deleted]
    for (permission, type_name), is_deletion in dict.fromkeys(needed):
        if type_name:
            call.rights.require_content(type_name, call.method.name, is_deletion=is_deletion)
        else:
            call.require(permission)


def _need_to_write(key: Key) -> tuple[str, str]:
    """What a caller needs to write the record with a key: a permission, or that for a type of content.

    A role on the platform may be that of a caller, without its account a caller has no roles, and a token
    gives its holder the roles of its caller: all are for who grants those roles.
    """
    match key:
        case ResourceRef(type=type_name) | ShareKey(resource=ResourceRef(type=type_name)):
            return "", type_name
        case MembershipKey(scope=Scope(kind=ScopeKind.PLATFORM)):
            return GRANT_ROLES, ""
        case AccountKey(subject=Subject(type=SubjectType.SERVICE)) | AccessTokenKey():
            return GRANT_ROLES, ""
        case _:
            return f"write_{kind_of(key).plural}", ""


def permission_to_read(kind: EntityKind) -> str:
    """What a caller needs to read the records of a kind; empty for those that `watch` alone lets it read."""
    if kind is EntityKind.HOLD:
        return ERASE_SUBJECT  # who is in a dispute concerns nobody who keeps a copy of the directory
    if kind is EntityKind.RESTRICTION:
        return "read_accounts"  # it takes roles away, as a suspended account does
    return "" if kind in _WATCHED_BY_ALL else f"read_{KINDS[kind].plural}"


async def require_of_person(call: Call, rights: PersonRights, permission: str = "") -> None:
    """Raise `PermissionDeniedError` unless the person on whose behalf the call is made, if any, has a
    permission, too, throughout the call: by default that of the method."""
    person = call.principal.on_behalf_of
    if person is not None:
        needed = permission or call.method.permission
        await call.require_throughout(partial(rights.require_permission, person, needed))


async def require_policy_edit(call: Call, rights: PersonRights, scope: Scope) -> None:
    """Raise `PermissionDeniedError` unless the person, if any, may edit the policy of a scope, throughout the
    call."""
    await call.require_throughout(partial(rights.require_policy_edit, call.principal.on_behalf_of, scope))


async def require_policy_read(call: Call, rights: PersonRights, scope: Scope) -> None:
    """As `require_policy_edit` for the policy of a course. The published versions of the platform's policy
    may be read for every person."""
    if scope != PLATFORM:
        await require_policy_edit(call, rights, scope)


class PolicyPermissions(Permissions):
    """Gives callers the rights of their roles on the platform, by the policy that is active."""

    def __init__(self, active: ActiveChecker) -> None:
        self._active = active

    async def rights_of(self, principal: Principal, deadline: float | None) -> CallerRights:
        caller = principal.caller
        if caller is None:
            return CallerRights(holder=principal.actor)
        snapshot, checker, now = await self._active.get(MINIMIZE_LATENCY, deadline)
        permissions = checker.permissions_of(snapshot, caller, now)
        suspension = None if permissions else snapshot.suspension(caller)
        content, undeclared = checker.cached(API_TYPE, lambda _: _writes(checker.policy.vocabulary))
        return CallerRights(
            permissions=permissions,
            holder=principal.actor,
            suspended=suspension.remedy(caller) if suspension and suspension.is_effective(now) else "",
            undeclared=undeclared,
            content=content,
        )


def _writes(vocabulary: Vocabulary) -> tuple[frozenset[str], frozenset[str]]:
    """The permissions to write the resources of each declared type, and those of them that no role can have:
    the policy declares the type alone."""
    permissions = vocabulary.types[API_TYPE].actions if API_TYPE in vocabulary.types else ()
    content = frozenset(f"write_{name}" for name in vocabulary.types.keys() - set(STRUCTURAL_TYPES))
    return content, content - set(permissions)
