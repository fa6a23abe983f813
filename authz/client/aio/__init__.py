"""The client for asyncio, from which the other one is generated."""
