"""The client of PrivacyService."""

from __future__ import annotations

from collections.abc import AsyncIterator

from authz.client.aio.calls import Calls
from authz.client.arguments import as_choice, as_number, as_text, message_of, sent_subject
from authz.client.questions import WriteToken, warn_unless_replicated
from authz.domain.entities import Erasure, Hold, RetainedData, RetentionRule, Versioned
from authz.domain.erasures import ERASURE_LIST_FORMAT, ErasureCertificate, ErasureList, RestrictedSubject
from authz.domain.exports import ExportItem
from authz.domain.ids import Subject
from authz.v1 import privacy_pb2, privacy_pb2_grpc
from authz.wire.entities import parse_versioned
from authz.wire.exports import parse_export_item
from authz.wire.privacy import parse_certificate, parse_period, period_request_message, restricted_of


class AsyncPrivacyClient:
    """`Client.privacy`. Every call raises `CallError`."""

    def __init__(self, stub: privacy_pb2_grpc.PrivacyServiceAsyncStub, calls: Calls) -> None:
        self._stub = stub
        self._calls = calls

    async def export(self, subject: str | Subject) -> AsyncIterator[ExportItem]:
        """Everything that the service holds about a subject: an `ExportBegin`, records in an importable
        order, changes, other entries, and an `ExportEnd`. Has no timeout."""
        request = message_of(privacy_pb2.ExportSubjectRequest, subject=sent_subject(subject))
        async for message in self._calls.stream(self._stub.ExportSubject, request):
            for item in message.items:
                yield parse_export_item(item)

    async def erase(
        self,
        subject: str | Subject,
        *,
        reason: str,
        resources_to: str | Subject = "",
        orphan_resources: bool = False,
    ) -> ErasureCertificate:
        """Erase a subject. Its resources go to another subject, or with `orphan_resources` to nobody.

        Returns when the erasure is complete, or after 4 s with its progress; `erasures` reads it again.
        """
        request = message_of(
            privacy_pb2.EraseSubjectRequest,
            subject=sent_subject(subject),
            reason=reason,
            resources_to=sent_subject(resources_to, field="resources_to") if resources_to else None,
        )
        if orphan_resources and not resources_to:
            request.orphan_resources = True
        response = await self._calls.call(self._stub.EraseSubject, request)
        return parse_certificate(response.certificate)

    async def erasures(self, subject: str | Subject = "") -> AsyncIterator[ErasureCertificate]:
        """The certificates of all erasures, or of those of a subject. Fetches pages as needed."""
        async for response in self._erasures(subject):
            for each in response.certificates:
                yield parse_certificate(each)

    async def erasure_list(self) -> ErasureList:
        """All erasures, for the restore of a backup: `authz restore --erasures`."""
        database_id, found = "", list[Erasure]()
        async for response in self._erasures(""):
            database_id = response.database_id
            found += [parse_certificate(each).erasure for each in response.certificates]
        return ErasureList(ERASURE_LIST_FORMAT, database_id, tuple(found))

    def _erasures(self, subject: str | Subject) -> AsyncIterator[privacy_pb2.ReadErasuresResponse]:
        sent = sent_subject(subject) if subject else None
        request = privacy_pb2.ReadErasuresRequest(subject=sent)
        return self._calls.pages(self._stub.ReadErasures, request)

    async def forget_watcher(self, caller: str) -> None:
        """Remove a watcher that will not return from all certificates."""
        await self._calls.call(
            self._stub.ForgetWatcher, message_of(privacy_pb2.ForgetWatcherRequest, caller=caller)
        )

    async def forget_replica(self, name: str) -> None:
        """Remove a decommissioned machine, whose disk is destroyed, from all certificates."""
        await self._calls.call(
            self._stub.ForgetReplica, message_of(privacy_pb2.ForgetReplicaRequest, name=name)
        )

    async def release(self, subject: str | Subject, *, reason: str) -> str:
        """Allow writes to name an erased id again, for somebody new. Returns the token of the state."""
        request = message_of(
            privacy_pb2.ReleaseErasedSubjectRequest,
            subject=sent_subject(subject),
            reason=reason,
        )
        response = await self._calls.call(self._stub.ReleaseErasedSubject, request)
        return str(response.written_at.token)

    async def rename(
        self, subject: str | Subject, to: str | Subject, *, reason: str, merge: bool = False
    ) -> dict[str, int]:
        """Move every record of a subject to another id, all at once. Returns the count of each kind.

        With `merge`, the other id may have records of its own: two accounts become one, for good.
        """
        request = message_of(
            privacy_pb2.RenameSubjectRequest,
            subject=sent_subject(subject),
            to=sent_subject(to, field="to"),
            reason=reason,
            merge=merge,
        )
        response = await self._calls.call(self._stub.RenameSubject, request)
        warn_unless_replicated(response.replicated)
        return {each.kind: each.count for each in response.records}

    async def hold(self, subject: str | Subject, *, reason: str) -> str:
        """Block the erasure of a subject. Returns the token of the state."""
        request = message_of(privacy_pb2.HoldSubjectRequest, subject=sent_subject(subject), reason=reason)
        return str((await self._calls.call(self._stub.HoldSubject, request)).written_at.token)

    async def release_hold(self, subject: str | Subject, *, reason: str) -> str:
        """End the hold on a subject. Returns the token of the state."""
        request = message_of(privacy_pb2.ReleaseHoldRequest, subject=sent_subject(subject), reason=reason)
        return str((await self._calls.call(self._stub.ReleaseHold, request)).written_at.token)

    async def holds(self) -> list[Hold]:
        """All holds, ordered by subject."""
        response = await self._calls.call(self._stub.ReadHolds, privacy_pb2.ReadHoldsRequest())
        return [parse_versioned(each).entity for each in response.holds]

    async def restrict(self, subject: str | Subject, *, reason: str) -> WriteToken:
        """Take all access from a subject, and keep its data, until the restriction is lifted. Returns the
        token of the state. Logs a warning as `write` does."""
        request = message_of(privacy_pb2.RestrictSubjectRequest, subject=sent_subject(subject), reason=reason)
        response = await self._calls.call(self._stub.RestrictSubject, request)
        warn_unless_replicated(response.replicated)
        return WriteToken(response.written_at.token, replicated=response.replicated)

    async def lift_restriction(self, subject: str | Subject, *, reason: str) -> str:
        """End the restriction of a subject. Returns the token of the state."""
        request = message_of(privacy_pb2.LiftRestrictionRequest, subject=sent_subject(subject), reason=reason)
        return str((await self._calls.call(self._stub.LiftRestriction, request)).written_at.token)

    async def restrictions(self) -> list[RestrictedSubject]:
        """All restrictions with their reasons, ordered by subject."""
        request = privacy_pb2.ReadRestrictionsRequest()
        response = await self._calls.call(self._stub.ReadRestrictions, request)
        return [*map(restricted_of, response.restrictions)]

    async def retention(self) -> list[Versioned[RetentionRule]]:
        """The retention rules of all data. `days` is None for data that is kept forever."""
        response = await self._calls.call(self._stub.ReadRetention, privacy_pb2.ReadRetentionRequest())
        return [parse_period(each) for each in response.periods]

    async def set_retention(
        self, data: str | RetainedData, days: int | None, *, reason: str, revision: int | None = None
    ) -> Versioned[RetentionRule]:
        """Keep some data for a number of days, or with None forever, on all servers.

        With `revision`, that of the rule that you read, the call fails if the rule has changed since.
        """
        request = period_request_message(
            as_choice(data, RetainedData, field="data"),
            None if days is None else as_number(days, field="days"),
            reason=as_text(reason, field="reason"),
            revision=None if revision is None else as_number(revision, field="revision"),
        )
        return parse_period((await self._calls.call(self._stub.SetRetention, request)).period)
