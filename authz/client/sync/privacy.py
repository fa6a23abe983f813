# Generated from authz/client/aio/privacy.py; see `make client`.
"""What is held about a subject, seen from a client."""

from __future__ import annotations

from collections.abc import Iterator

from authz.client.questions import as_subject
from authz.client.sync.calls import Calls
from authz.domain.exports import ExportItem
from authz.domain.ids import Subject
from authz.v1 import privacy_pb2, privacy_pb2_grpc
from authz.wire.exports import parse_export_item
from authz.wire.values import subject_message


class PrivacyClient:
    """`Client.privacy`. Every call raises `CallError`."""

    def __init__(self, stub: privacy_pb2_grpc.PrivacyServiceStub, calls: Calls) -> None:
        self._stub = stub
        self._calls = calls

    def export(self, subject: str | Subject) -> Iterator[ExportItem]:
        """Everything that is held about a subject: an `ExportBegin`, records in an order in which they can be
        imported, changes, everything else, and an `ExportEnd`. Has no time limit."""
        request = privacy_pb2.ExportSubjectRequest(subject=subject_message(as_subject(subject)))
        for message in self._calls.stream(self._stub.ExportSubject, request):
            for item in message.items:
                yield parse_export_item(item)
