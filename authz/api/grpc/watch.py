"""WatchService: sends the change log as it grows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from authz.access.principal import Principal
from authz.api.call import Call
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
        """From the token, or from now."""
        await self._watches.watch(
            change_filter(request),
            caller=Principal(call.principal.caller).actor,
            after=request.after.token if request.HasField("after") else None,
            checkpoint_interval_s=checkpoint_interval_s(request),
            write=send,
        )
