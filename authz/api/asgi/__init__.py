"""gRPC on ASGI, for a server that speaks HTTP/2 for it."""
