"""From the error tree to `google.rpc.Status`: one table, and details for each."""

from __future__ import annotations

from itertools import accumulate

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
    UnknownMethodError,
    UnusablePolicyError,
)

ERROR_DOMAIN = "authz.qalamchat"
DETAILS_HEADER = "grpc-status-details-bin"
"""The trailer with a status as a message. Source: gRPC's protocol over HTTP/2."""

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
    UnknownMethodError: code_pb2.UNIMPLEMENTED,
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


_MAX_MESSAGE_BYTES, _MAX_FAULTS_BYTES, _MAX_VALUE_BYTES = 2000, 1800, 300
"""Of a message, of the faults of a policy in it and again in the details, and of a value of the metadata, as
gRPC sends them: it drops a status of over 8 KiB."""


def status_of(error: AuthzError) -> status_pb2.Status:
    """The status of an error, with `ErrorInfo`, with `RetryInfo` where trying again may help, and with
    `BadRequest` for the faults of a policy, as far as they fit."""
    message = error.message
    metadata = {name: _fitting(value, _MAX_VALUE_BYTES) for name, value in error.metadata.items()}
    info = error_details_pb2.ErrorInfo(reason=error.reason.value, domain=ERROR_DOMAIN, metadata=metadata)
    details = [_pack(info)]
    if error.retry_after_s:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(round(error.retry_after_s * 1000))
        details.append(_pack(error_details_pb2.RetryInfo(retry_delay=delay)))
    if isinstance(error, PolicyError):
        faults = _first_faults(error)
        if len(faults) < len(error.faults):
            message = _shortened(error, faults)
        details.append(_pack(_violations(faults)))
    message = _fitting(message, _MAX_MESSAGE_BYTES)
    return status_pb2.Status(code=STATUS_CODES[type(error)], message=message, details=details)


def _sent_bytes(char: str) -> int:
    """What a character takes in a status: gRPC sends three bytes for each that is not printable ASCII."""
    return 1 if " " <= char <= "~" and char != "%" else 3 * len(char.encode())


def _fitting(text: str, max_bytes: int) -> str:
    """As much of a text as may be sent."""
    count = sum(sent <= max_bytes for sent in accumulate(map(_sent_bytes, text[: max_bytes + 1])))
    return text if count == len(text) else f"{text[:count]}…"


def _first_faults(error: PolicyError) -> tuple[PolicyFault, ...]:
    """Those that fit, the first one in any case."""
    size_bytes, count = 0, 0
    for fault in error.faults:
        size_bytes += sum(map(_sent_bytes, f"\n{fault}"[: _MAX_FAULTS_BYTES + 1]))
        if size_bytes > _MAX_FAULTS_BYTES:
            break
        count += 1
    return error.faults[: max(count, 1)]


def _shortened(error: PolicyError, faults: tuple[PolicyFault, ...]) -> str:
    head, _, _ = error.message.partition("\n")
    shown = "\n".join(_fitting(str(fault), _MAX_FAULTS_BYTES) for fault in faults)
    more = len(error.faults) - len(faults)
    return f"{head}\n{shown}\n… and {more} more; `ValidatePolicy` lists the first 1,000"


def _violations(faults: tuple[PolicyFault, ...]) -> error_details_pb2.BadRequest:
    """One violation a fault: its field is `file:line:column`."""
    violation = error_details_pb2.BadRequest.FieldViolation
    return error_details_pb2.BadRequest(
        field_violations=[
            violation(
                field=f"{fault.file}:{fault.line}:{fault.column}",
                description=_fitting(fault.text, _MAX_FAULTS_BYTES),
            )
            for fault in faults
        ]
    )


def parse_fault(field: str, description: str) -> PolicyFault:
    """The fault that a violation is of."""
    file, line, column = field.rsplit(":", 2)
    return PolicyFault(file, int(line), int(column), description)


def _pack(message: Message) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
