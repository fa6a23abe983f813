"""From the error tree to `google.rpc.Status`: one table, and details for each."""

from __future__ import annotations

from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from authz.domain.errors import (
    AlreadyExistsError,
    AuthzError,
    ConflictError,
    FailedPreconditionError,
    ImportEndedError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    OutOfRangeError,
    OverloadedError,
    PermissionDeniedError,
    PolicyError,
    PolicyFault,
    RemovalPendingError,
    SlowConsumerError,
    UnauthenticatedError,
    UnavailableError,
    UnusablePolicyError,
)

ERROR_DOMAIN = "authz.qalamchat"

STATUS_CODES: dict[type[AuthzError], int] = {
    InvalidArgumentError: code_pb2.INVALID_ARGUMENT,
    UnauthenticatedError: code_pb2.UNAUTHENTICATED,
    NotFoundError: code_pb2.NOT_FOUND,
    AlreadyExistsError: code_pb2.ALREADY_EXISTS,
    FailedPreconditionError: code_pb2.FAILED_PRECONDITION,
    ConflictError: code_pb2.ABORTED,
    RemovalPendingError: code_pb2.ABORTED,
    SlowConsumerError: code_pb2.ABORTED,
    ImportEndedError: code_pb2.ABORTED,
    PermissionDeniedError: code_pb2.PERMISSION_DENIED,
    OutOfRangeError: code_pb2.OUT_OF_RANGE,
    OverloadedError: code_pb2.RESOURCE_EXHAUSTED,
    UnavailableError: code_pb2.UNAVAILABLE,
    UnusablePolicyError: code_pb2.UNAVAILABLE,
    PolicyError: code_pb2.FAILED_PRECONDITION,
    InternalError: code_pb2.INTERNAL,
}
"""Numbers of `google.rpc.Code`, which are those of gRPC."""


def code_name(error: AuthzError) -> str:
    """The name of the error's status code, such as `INVALID_ARGUMENT`."""
    return str(code_pb2.Code.Name(STATUS_CODES[type(error)]))


_MAX_FAULTS_BYTES = 2000
"""Of the faults of a policy, in the message and again in the details: gRPC drops a status of over 8 KiB."""


def status_of(error: AuthzError) -> status_pb2.Status:
    """The status of an error, with `ErrorInfo`, with `RetryInfo` where trying again may help, and with
    `BadRequest` for the faults of a policy, as far as they fit."""
    message = error.message
    info = error_details_pb2.ErrorInfo(
        reason=error.reason.value, domain=ERROR_DOMAIN, metadata=error.metadata
    )
    details = [_pack(info)]
    if error.retry_after_s:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(error.retry_after_s * 1000))
        details.append(_pack(error_details_pb2.RetryInfo(retry_delay=delay)))
    if isinstance(error, PolicyError):
        faults = _first_faults(error)
        message = (
            PolicyError(faults).message if len(faults) == len(error.faults) else _shortened(error, faults)
        )
        details.append(_pack(_violations(faults)))
    return status_pb2.Status(code=STATUS_CODES[type(error)], message=message, details=details)


def _first_faults(error: PolicyError) -> tuple[PolicyFault, ...]:
    """Those that fit, the first one in any case."""
    size_bytes, count = 0, 0
    for fault in error.faults:
        size_bytes += len(str(fault).encode())
        if size_bytes > _MAX_FAULTS_BYTES:
            break
        count += 1
    return error.faults[: max(count, 1)]


def _shortened(error: PolicyError, faults: tuple[PolicyFault, ...]) -> str:
    head, _, _ = error.message.partition("\n")
    shown = "\n".join(str(fault)[:_MAX_FAULTS_BYTES] for fault in faults)
    more = len(error.faults) - len(faults)
    return f"{head}\n{shown}\n… and {more} more; `ValidatePolicy` lists the first 1,000"


def _violations(faults: tuple[PolicyFault, ...]) -> error_details_pb2.BadRequest:
    """One violation a fault: its field is `file:line:column`."""
    violation = error_details_pb2.BadRequest.FieldViolation
    return error_details_pb2.BadRequest(
        field_violations=[
            violation(
                field=f"{fault.file}:{fault.line}:{fault.column}", description=fault.text[:_MAX_FAULTS_BYTES]
            )
            for fault in faults
        ]
    )


def _pack(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
