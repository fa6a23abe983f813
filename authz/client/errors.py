"""What a call of the client raises when it is not answered. Nothing that raises has allowed anything."""

from __future__ import annotations

from typing import Any, Literal

import grpc
import msgspec
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
            reason = _reason(status_pb2.Status.FromString(value))
    return CallError(code, reason, failure.details() or code.name)


class ItemFault(msgspec.Struct, frozen=True):
    """What is wrong with one question of a batch. False, and `allowed` false, as a denial is."""

    reason: str
    message: str
    allowed: Literal[False] = False

    def __bool__(self) -> bool:
        """Never: nothing was allowed."""
        return False


def fault_of(status: status_pb2.Status) -> ItemFault:
    """The fault of one question, with the reason from its `google.rpc.ErrorInfo`."""
    return ItemFault(_reason(status), status.message)


def _reason(status: status_pb2.Status) -> str:
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            return str(info.reason)
    return ""
