"""What a principal may call."""

from __future__ import annotations

from typing import Protocol

import msgspec

from authz.access.principal import Principal
from authz.domain.errors import PermissionDeniedError
from authz.domain.vocabulary import API_TYPE, suggest

ACT_FOR = "act_for"
"""What a caller needs to make calls for a person."""


class CallerRights(msgspec.Struct, frozen=True, gc=False):
    """The permissions of a principal: actions of the type `api`. None for all that there are.

    `suspended` says that the caller is suspended, so that it has no roles, and how to end that; empty if it
    is not.
    `undeclared` are the permissions to write resources that no role can have, because the policy declares the
    type and not the permission. `content` are the permissions to write the resources of each type that it
    declares.
    """

    permissions: frozenset[str] | None = frozenset()
    holder: str = ""
    suspended: str = ""
    undeclared: frozenset[str] = frozenset()
    content: frozenset[str] = frozenset()

    def has(self, permission: str) -> bool:
        """Whether the principal has a permission."""
        return self.permissions is None or permission in self.permissions

    def require(self, permission: str, method: str) -> None:
        """Raise `PermissionDeniedError`, which names the permission, unless the principal has it."""
        if not self.has(permission):
            raise self._denied(permission, method)

    def require_content(self, type_name: str, method: str, *, is_deletion: bool) -> None:
        """Likewise for the permission to write the resources of a type, and what is shared of them. What has
        a type that the policy does not declare is also deleted by who may write every type that it declares:
        no role can have the permission for the other."""
        permission = f"write_{type_name}"
        if self.has(permission):
            return
        if permission in self.content:
            raise self._denied(permission, method)
        if not (is_deletion and self.content and all(map(self.has, self.content))):
            raise self._denied_undeclared(type_name, permission, method, is_deletion=is_deletion)

    def require_kept(self, before: CallerRights, method: str) -> None:
        """Raise `PermissionDeniedError`, which names what was lost, unless the principal has every permission
        that it had before."""
        if self.permissions is None:
            return
        had = frozenset("*") if before.permissions is None else before.permissions
        lost = sorted(had - self.permissions)
        if lost and self.suspended:
            raise self._denied(lost[0], method)
        if lost:
            names = ", ".join(f"`{each}`" for each in lost)
            raise PermissionDeniedError(
                f"`{self.holder}` lost {names} during the call; call again for what it may still do",
                method=method,
                type=API_TYPE,
                permission=lost[0],
            )

    def require_any(self, prefix: str, method: str) -> None:
        """Likewise for any permission whose name begins so."""
        if self.permissions is not None and not any(each.startswith(prefix) for each in self.permissions):
            raise self._denied(f"{prefix}*", method)

    def _denied(self, permission: str, method: str) -> PermissionDeniedError:
        why = (
            f"none of its roles permits `{permission}` on {API_TYPE}; an operator can give it a role that"
            " does (see `authz policy show --type api`), with `authz member add service:<id> platform <role>`"
        )
        if permission in self.undeclared:
            why = (
                f"the active policy declares no permission `{permission}`; add it to the actions of the type"
                f" `{API_TYPE}`, and a row for the role that needs it"
            )
        return self._error(why, permission, method)

    def _denied_undeclared(
        self, type_name: str, permission: str, method: str, *, is_deletion: bool
    ) -> PermissionDeniedError:
        remedy = (
            "who may write every type that it declares, in the default policy a `platform_admin`, may delete"
            " what has this type"
            if is_deletion
            else f"{suggest(type_name, [name.removeprefix('write_') for name in self.content])}; else publish"
            f" a version that declares it, and `{permission}` among the actions of `{API_TYPE}`"
        )
        why = f"the active policy declares no resource type `{type_name}`; {remedy}"
        return self._error(why, permission, method)

    def _error(self, why: str, permission: str, method: str) -> PermissionDeniedError:
        return PermissionDeniedError(
            f"`{self.holder}` may not call {method}: {self.suspended or why}",
            method=method,
            type=API_TYPE,
            permission=permission,
        )


NO_RIGHTS = CallerRights()
EVERY_RIGHT = CallerRights(None)


class Permissions(Protocol):
    """Consulted for every call, before any work is done for it, and again while a call lasts."""

    async def rights_of(self, principal: Principal, deadline: float | None) -> CallerRights:
        """What the principal may call now. Raises `AuthzError` when that cannot be found out by the deadline,
        on the clock of `time.monotonic`."""


class AllowAll(Permissions):
    """Permits every principal every method: for a server without authenticators."""

    async def rights_of(self, _principal: Principal, _deadline: float | None) -> CallerRights:
        return EVERY_RIGHT
