"""PrivacyService: what is held about a subject."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from authz.api.call import Call
from authz.domain.ids import Subject
from authz.engine.consistency import ConsistencyGate
from authz.engine.exports import Exporter
from authz.engine.rights import Rights
from authz.v1 import privacy_pb2 as pb
from authz.wire.exports import export_messages
from authz.wire.values import parse_subject


class PrivacyServicer:
    """Each call needs its permission of the caller, and of the person that it is made for."""

    service = pb.DESCRIPTOR.services_by_name["PrivacyService"]

    def __init__(self, exporter: Exporter, gate: ConsistencyGate, *, rights: Rights) -> None:
        self._exporter = exporter
        self._gate = gate
        self._rights = rights

    async def ExportSubject(
        self,
        request: pb.ExportSubjectRequest,
        call: Call,
        send: Callable[[pb.ExportSubjectResponse], Awaitable[None]],
    ) -> None:
        """Everything that is held about the subject. People may ask about themselves."""
        subject = parse_subject(request, "subject", field="subject")
        if call.principal.on_behalf_of != subject:
            await self._require(call)
        await self._exporter.export(subject, export_messages, send)

    async def _require(self, call: Call) -> None:
        person: Subject | None = call.principal.on_behalf_of
        if person is not None:
            await self._rights.require_permission(person, call.method.permission)
