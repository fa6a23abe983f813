"""The Python SDK."""

from authz.client.client import Answer, Client, ImportOutcome, check_request
from authz.client.errors import CallError, ItemFault

__all__ = ["Answer", "CallError", "Client", "ImportOutcome", "ItemFault", "check_request"]
