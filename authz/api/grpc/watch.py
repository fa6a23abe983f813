"""WatchService: sends the change log as it grows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from authz.access.principal import Principal
from authz.api.call import Call
from authz.api.permissions import permission_to_read
from authz.domain.change_filter import ChangeFilter
from authz.domain.entities import EntityKind
from authz.engine.watch import Watches
from authz.v1 import watch_pb2 as pb
from authz.wire.changes import change_filter, checkpoint_interval_s


class WatchServicer:
    """Each call is a watch that lasts until the client or the server ends it."""

    service = pb.DESCRIPTOR.services_by_name["WatchService"]

    def __init__(self, watches: Watches[pb.WatchResponse]) -> None:
        self._watches = watches

    async def Watch(
        self,
        request: pb.WatchRequest,
        call: Call,
        send: Callable[[pb.WatchResponse], Awaitable[None]],
    ) -> None:
        """From the token, or from now. Leaves out the kinds that the caller may not read, and refuses a
        request that names one."""
        await self._watches.watch(
            _readable(change_filter(request), call),
            caller=Principal(call.principal.caller).actor,
            after=request.after.token if request.HasField("after") else None,
            checkpoint_interval_s=checkpoint_interval_s(request),
            write=send,
        )


def _readable(wanted: ChangeFilter, call: Call) -> ChangeFilter:
    needed = {kind: permission_to_read(kind) for kind in EntityKind}
    for kind in sorted(wanted.kinds):
        if needed[kind]:
            call.require(needed[kind])
    hidden = {kind for kind, permission in needed.items() if permission and not call.rights.has(permission)}
    if wanted.kinds or not hidden:
        return wanted
    return msgspec.structs.replace(wanted, kinds=frozenset(EntityKind) - hidden)
