"""What a call of the client raises when it is not answered. Nothing that raises has allowed anything."""

from __future__ import annotations

from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2


class CallError(Exception):
    """A call that failed. `str(error)` names the input and the remedy where the server knew them.

    `code` is the gRPC status, `reason` a name of `authz.v1.ErrorReason` without prefix, or empty when
    the server was not reached.
    """

    def __init__(self, code: grpc.StatusCode, reason: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message


def error_of(failure: Any) -> CallError:
    """The error for a failed call (a `grpc.RpcError`), with the reason from its `google.rpc.ErrorInfo`."""
    code: grpc.StatusCode = failure.code()
    reason = ""
    for name, value in failure.trailing_metadata() or ():
        if name == "grpc-status-details-bin":
            reason = _reason(value)
    return CallError(code, reason, failure.details() or code.name)


def _reason(serialized: bytes) -> str:
    for detail in status_pb2.Status.FromString(serialized).details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return str(info.reason)
    return ""
