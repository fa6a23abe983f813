# Generated from authz/client/aio/__init__.py; see `make client`.
"""The client for asyncio, from which the other one is generated."""
