"""The client of policy shadows."""

from __future__ import annotations

import datetime as dt

from authz.client.aio.calls import Calls
from authz.client.arguments import as_number, as_text, message_of, nonzero, sent_course, sent_time
from authz.domain.instants import Instant
from authz.domain.shadow import ShadowReport
from authz.v1 import policy_pb2, policy_pb2_grpc
from authz.wire.shadows import parse_shadow


class AsyncShadowClient:
    """`Client.policies.shadow`: evaluates a candidate on live checks. Every call raises `CallError`."""

    def __init__(self, stub: policy_pb2_grpc.PolicyServiceAsyncStub, calls: Calls) -> None:
        self._stub = stub
        self._calls = calls

    async def start(
        self,
        candidate: str | int,
        *,
        sample_rate: float = 0.01,
        budget_us: int = 10_000,
        ends_at: dt.datetime | Instant | None = None,
        author: str = "",
        course_id: str | None = None,
    ) -> ShadowReport:
        """Evaluate a version (by number) or a draft (by id) on a sample of the checks, and count differences.

        Ends at `ends_at`, or after an hour. Later edits of the draft have no effect. `budget_us` is the
        maximum of microseconds per second that each serving process spends on it. With `course_id`, the
        candidate is a policy of this course, and only checks in the course count.
        """
        request = message_of(
            policy_pb2.StartPolicyShadowRequest,
            sample_rate=nonzero(sample_rate, field="sample_rate"),
            budget_us=nonzero(budget_us, field="budget_us"),
            author=author,
            course_id=sent_course(course_id),
            ends_at=sent_time(ends_at, field="ends_at"),
        )
        if isinstance(candidate, int):
            request.number = as_number(candidate, field="candidate")
        else:
            request.draft_id = as_text(candidate, field="candidate")
        return parse_shadow((await self._calls.call(self._stub.StartPolicyShadow, request)).shadow)

    async def read(self, *, course_id: str | None = None) -> ShadowReport | None:
        """The last shadow of the platform or of a course, with its results so far; None if there is none."""
        request = message_of(policy_pb2.ReadPolicyShadowRequest, course_id=sent_course(course_id))
        response = await self._calls.call(self._stub.ReadPolicyShadow, request)
        return parse_shadow(response.shadow) if response.HasField("shadow") else None

    async def stop(self, *, course_id: str | None = None) -> ShadowReport:
        """End the shadow of the platform or of a course on all servers, within seconds."""
        request = message_of(policy_pb2.StopPolicyShadowRequest, course_id=sent_course(course_id))
        return parse_shadow((await self._calls.call(self._stub.StopPolicyShadow, request)).shadow)
