"""The shadow of the policy, seen from a client."""

from __future__ import annotations

from authz.client.aio.calls import Calls
from authz.domain.instants import Instant
from authz.domain.shadow import ShadowReport
from authz.v1 import policy_pb2, policy_pb2_grpc
from authz.wire.shadows import parse_shadow
from authz.wire.values import set_time


class AsyncShadowClient:
    """`Client.policies.shadow`: tries a candidate beside the active policy. Every call raises `CallError`."""

    def __init__(self, stub: policy_pb2_grpc.PolicyServiceAsyncStub, calls: Calls) -> None:
        self._stub = stub
        self._calls = calls

    async def start(
        self,
        candidate: str | int,
        *,
        share: float = 0.01,
        budget_us: int = 10_000,
        ends_at: Instant | None = None,
        author: str = "",
    ) -> ShadowReport:
        """Let a version, by its number, or a draft, by its id, decide a share of the checks, too, and count
        what it decides differently; until `ends_at`, or for an hour. A later edit of the draft plays no part.

        `budget_us` is how many microseconds of each second each serving process spends on that at most.
        """
        request = policy_pb2.StartPolicyShadowRequest(share=share, budget_us=budget_us, author=author)
        if isinstance(candidate, int):
            request.number = candidate
        else:
            request.draft_id = candidate
        set_time(request.ends_at, ends_at)
        return parse_shadow((await self._calls.call(self._stub.StartPolicyShadow, request)).shadow)

    async def read(self) -> ShadowReport | None:
        """The last one that was started, and what came of it so far; None if there is none."""
        request = policy_pb2.ReadPolicyShadowRequest()
        response = await self._calls.call(self._stub.ReadPolicyShadow, request)
        return parse_shadow(response.shadow) if response.HasField("shadow") else None

    async def stop(self) -> ShadowReport:
        """End it on all servers, within seconds."""
        request = policy_pb2.StopPolicyShadowRequest()
        return parse_shadow((await self._calls.call(self._stub.StopPolicyShadow, request)).shadow)
