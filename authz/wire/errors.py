"""From the error tree to `google.rpc.Status`: one table, and details for each."""

from __future__ import annotations

from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2

from authz.domain.errors import (
    AlreadyExistsError,
    AuthzError,
    ConflictError,
    FailedPreconditionError,
    ImportEndedError,
    InternalError,
    InvalidArgumentError,
    OutOfRangeError,
    OverloadedError,
    PolicyError,
    RemovalPendingError,
    SlowConsumerError,
    UnavailableError,
)

ERROR_DOMAIN = "authz.qalamchat"

STATUS_CODES: dict[type[AuthzError], int] = {
    InvalidArgumentError: code_pb2.INVALID_ARGUMENT,
    AlreadyExistsError: code_pb2.ALREADY_EXISTS,
    FailedPreconditionError: code_pb2.FAILED_PRECONDITION,
    ConflictError: code_pb2.ABORTED,
    RemovalPendingError: code_pb2.ABORTED,
    SlowConsumerError: code_pb2.ABORTED,
    ImportEndedError: code_pb2.ABORTED,
    OutOfRangeError: code_pb2.OUT_OF_RANGE,
    OverloadedError: code_pb2.RESOURCE_EXHAUSTED,
    UnavailableError: code_pb2.UNAVAILABLE,
    PolicyError: code_pb2.FAILED_PRECONDITION,
    InternalError: code_pb2.INTERNAL,
}
"""Numbers of `google.rpc.Code`, which are those of gRPC."""


def code_name(error: AuthzError) -> str:
    """The name of the error's status code, such as `INVALID_ARGUMENT`."""
    return str(code_pb2.Code.Name(STATUS_CODES[type(error)]))


def status_of(error: AuthzError) -> status_pb2.Status:
    """The status of an error, with `ErrorInfo`, and with `RetryInfo` where trying again may help."""
    info = error_details_pb2.ErrorInfo(
        reason=error.reason.value, domain=ERROR_DOMAIN, metadata=error.metadata
    )
    details = [_pack(info)]
    if isinstance(error, OverloadedError | RemovalPendingError):
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(error.retry_after_s * 1000))
        details.append(_pack(error_details_pb2.RetryInfo(retry_delay=delay)))
    return status_pb2.Status(code=STATUS_CODES[type(error)], message=error.message, details=details)


def _pack(message: error_details_pb2.ErrorInfo | error_details_pb2.RetryInfo) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
