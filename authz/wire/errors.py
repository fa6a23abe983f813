"""From the error tree to gRPC statuses: one table, and `google.rpc` details for each."""

from __future__ import annotations

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from authz.domain.errors import (
    AlreadyExistsError,
    AuthzError,
    ConflictError,
    ErrorReason,
    FailedPreconditionError,
    InvalidArgumentError,
    OutOfRangeError,
    OverloadedError,
    PolicyError,
    SlowConsumerError,
    UnavailableError,
)

ERROR_DOMAIN = "authz.qalamchat"

STATUS_CODES: dict[type[AuthzError], grpc.StatusCode] = {
    InvalidArgumentError: grpc.StatusCode.INVALID_ARGUMENT,
    AlreadyExistsError: grpc.StatusCode.ALREADY_EXISTS,
    FailedPreconditionError: grpc.StatusCode.FAILED_PRECONDITION,
    ConflictError: grpc.StatusCode.ABORTED,
    SlowConsumerError: grpc.StatusCode.ABORTED,
    OutOfRangeError: grpc.StatusCode.OUT_OF_RANGE,
    OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    UnavailableError: grpc.StatusCode.UNAVAILABLE,
    PolicyError: grpc.StatusCode.FAILED_PRECONDITION,
}


def status_of(error: AuthzError) -> status_pb2.Status:
    """The status of an error, with `ErrorInfo`, and `RetryInfo` where trying again may help."""
    info = error_details_pb2.ErrorInfo(
        reason=error.reason.value, domain=ERROR_DOMAIN, metadata=error.metadata
    )
    details = [_pack(info)]
    if isinstance(error, OverloadedError):
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(error.retry_after_s * 1000))
        details.append(_pack(error_details_pb2.RetryInfo(retry_delay=delay)))
    code: int = STATUS_CODES[type(error)].value[0]
    return status_pb2.Status(code=code, message=error.message, details=details)


def internal_status(request_id: str) -> status_pb2.Status:
    """The status of a fault of our own: nothing of its cause, but how to find it in the logs."""
    info = error_details_pb2.ErrorInfo(
        reason=ErrorReason.INTERNAL.value, domain=ERROR_DOMAIN, metadata={"request_id": request_id}
    )
    return status_pb2.Status(
        code=grpc.StatusCode.INTERNAL.value[0],
        message=f"internal error; quote request id `{request_id}` to the operator",
        details=[_pack(info)],
    )


def _pack(message: error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
