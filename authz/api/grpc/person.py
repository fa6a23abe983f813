"""Holds calls that are made on behalf of a person to the permissions of that person."""

from __future__ import annotations

from authz.api.call import Call
from authz.engine.rights import Rights


async def require_of_person(call: Call, rights: Rights) -> None:
    """Raise `PermissionDeniedError` unless the person on whose behalf the call is made, if any, has the
    permission of the method, too."""
    person = call.principal.on_behalf_of
    if person is not None:
        await rights.require_permission(person, call.method.permission)
