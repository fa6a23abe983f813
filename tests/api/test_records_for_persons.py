"""A call of AuditService or PrivacyService for a person needs the permission of that person, too."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from authz.api import methods
from authz.v1 import audit_pb2, common_pb2, privacy_pb2
from tests.service import info_of, serve

STU = common_pb2.Subject(type=common_pb2.SUBJECT_TYPE_USER, id="stu")
ADA = common_pb2.Subject(type=common_pb2.SUBJECT_TYPE_USER, id="ada")
METHODS = {
    method.name: (name, method)
    for name, file in (("audit", audit_pb2), ("privacy", privacy_pb2))
    for service in file.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


async def called(stub: Any, method: Any, **fields: Any) -> None:
    request = method.input_type._concrete_class(**fields)
    call = getattr(stub, method.name)(request, metadata=(("authz-acting-for", "user:stu"),))
    if method.server_streaming:
        async for _ in call:
            pass
    else:
        await call


async def test_no_call_about_records_is_made_for_a_person_without_the_right(sqlite_url: str) -> None:
    async with serve(sqlite_url) as service:
        for name, (stub, method) in METHODS.items():
            fields = {"subject": ADA} if name == "ExportSubject" else {}
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await called(getattr(service, stub), method, **fields)
            assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED, name
            assert (refused.value.details() or "").startswith("user:stu has no "), name
            assert info_of(refused.value).reason == "PERMISSION_MISSING", name
            # Without a log in the request, a proof is about the log of changes.
            needed = methods.METHODS[name][1] or "read_changes"
            assert info_of(refused.value).metadata["permission"] == needed, name
        await called(service.privacy, METHODS["ExportSubject"][1], subject=STU)  # of one's own
