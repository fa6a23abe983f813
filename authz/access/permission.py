"""What a principal may call."""

from __future__ import annotations

from typing import Protocol

from authz.access.principal import Principal


class Permissions(Protocol):
    """Consulted for every call, before any work is done for it."""

    def require(self, principal: Principal, method: str) -> None:
        """Return if the principal may call the method; else raise an `AuthzError`."""


class AllowAll:
    """Permits every principal every method."""

    def require(self, principal: Principal, method: str) -> None:
        """As `Permissions.require`; never raises."""
