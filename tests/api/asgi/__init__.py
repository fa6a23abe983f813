"""gRPC on ASGI."""
