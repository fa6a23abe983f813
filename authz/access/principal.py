"""Who is calling, as far as the transport vouches for it."""

from __future__ import annotations

from typing import Any

import grpc

UNAUTHENTICATED = "unauthenticated"


def actor_of(context: grpc.aio.ServicerContext[Any, Any]) -> str:
    """`service:<common name>` of the client's certificate; `unauthenticated` without one."""
    names = (context.auth_context() or {}).get("x509_common_name", ())
    for name in names:
        return f"service:{name.decode('utf-8', 'replace')[:128]}"
    return UNAUTHENTICATED
