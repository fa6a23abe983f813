"""A gRPC service on asyncio, which asks before each of its methods: here that of gRPC's health.

In your service, `questions` has its methods, and `public` those that everybody may call.
"""

import asyncio
import os
from typing import Any

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from authz.client import AsyncClient, check_request
from authz.client.aio.interceptor import RequireInterceptor


def may_read_course(request: health_pb2.HealthCheckRequest, context: Any) -> Any:
    """May who calls read the course that the request names? Take the caller from your authentication."""
    caller = dict(context.invocation_metadata()).get("x-user", "nobody")
    return check_request(f"user:{caller}", "read", f"course:{request.service}")


async def serve(address: str) -> None:
    """Serve until cancelled."""
    async with AsyncClient(os.environ.get("AUTHZ_ADDRESS", "127.0.0.1:50051")) as client:
        guard = RequireInterceptor(client, {"/grpc.health.v1.Health/Check": may_read_course})
        server = grpc.aio.server(interceptors=[guard])
        health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
        server.add_insecure_port(address)
        await server.start()
        await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve("127.0.0.1:50052"))
