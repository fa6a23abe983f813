"""An explanation tells what is registered, and so only a caller that may learn reasons gets one."""

from __future__ import annotations

import time
from pathlib import Path

import grpc

from authz.v1 import authorization_pb2 as apb
from authz.v1 import common_pb2 as pb
from authz.v1 import policy_pb2 as ppb
from tests.api.test_policies import messages, refused
from tests.callers import grant
from tests.issuer import Issuer, bearer
from tests.policies import with_rows
from tests.service import info_of, serve


async def test_who_may_not_learn_reasons_gets_no_explanation(sqlite_url: str, tmp_path: Path) -> None:
    issuer, roles = Issuer(), {"service:asker": "compliance_auditor", "service:root": "platform_admin"}
    grant(sqlite_url, roles)
    subject = pb.Subject(type=pb.SUBJECT_TYPE_USER, id="maya")
    resource = apb.ResourceQuery(type="course", id="no-such")
    request = apb.ExplainRequest(subject=subject, action="read", resource=resource)
    asker = bearer(issuer.jwt("asker"))
    async with serve(sqlite_url, now=time.time_ns() // 1000, **issuer.settings(tmp_path)) as service:
        told = await service.authorization.Explain(request, metadata=asker)
        assert told.answer.reason == apb.REASON_RESOURCE_UNKNOWN
        rows = with_rows("p, compliance_auditor, *, api, learn_reasons, , deny")
        policy = ppb.ApplyPolicyRequest(files=messages(rows))
        await service.policy.ApplyPolicy(policy, metadata=bearer(issuer.jwt("root")))
        error = await refused(service.authorization.Explain(request, metadata=asker))
        assert error.code() is grpc.StatusCode.PERMISSION_DENIED
        assert info_of(error).metadata["permission"] == "learn_reasons"
