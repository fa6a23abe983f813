"""The errors of the client. A call that raises has allowed nothing.

AuthzError
├── CallError               the call failed, or was not answered in time
└── InvalidArgumentError    an argument cannot be sent: nothing was called
"""

from __future__ import annotations

from typing import Any, Literal, Self, TypeVar

import grpc
import msgspec
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from authz.domain.errors import AuthzError, ErrorReason, PolicyFault
from authz.wire.errors import code_name as code_of_tree
from authz.wire.errors import parse_fault

MessageT = TypeVar("MessageT", bound=Message)

_NOT_CONNECTED = "connections to all backends failing"
_UNSENT = (_NOT_CONNECTED, "errors resolving ", "DNS resolution failed")
"""How what gRPC says of a call begins that no server can have: none was connected, or none was found."""
_OF_A_PROXY = "Received http2 header with status: "
"""How what gRPC says of an answer begins that has the status of HTTP, as none of a server has."""
_CLOSED_MEANWHILE = "Channel closed!"
"""In what gRPC says of a call with threads if its channel was closed before the answer."""
_USABLE_KEYS = "RSA, P-256 or P-384"
_REFUSED_KEYS = "P-521 or Ed25519"
_REMEDIES = {
    "WRONG_VERSION_NUMBER": "the server has no TLS; leave `tls_ca_file` out, or start the server"
    " with AUTHZ_TLS_CERTIFICATE_FILE",
    "Hostname Verification Check failed": "the certificate of the server is for another name; connect to a"
    " name that it has, or give the server one with this name as a subjectAltName",
    "CERTIFICATE_VERIFY_FAILED": "the certificate of the server is not from the authority in `tls_ca_file`,"
    " or has expired",
    "Socket closed": "the server closed the connection at once; if it has TLS, set `tls_ca_file`,"
    " and if it wants a client certificate, `tls_certificate_file` and `tls_key_file`",
    "Handshake read failed (Socket closed)": "the server ended the TLS handshake; if the server has no TLS,"
    " leave `tls_ca_file` out, and if it wants a client certificate, set `tls_certificate_file` and"
    f" `tls_key_file`; it also ends if the key of the server is {_REFUSED_KEYS}",
    "SSLV3_ALERT_HANDSHAKE_FAILURE": "the server has no certificate that this client accepts; if the key of"
    f" the server is {_REFUSED_KEYS}, give it one that is {_USABLE_KEYS}",
    "NO_COMMON_SIGNATURE_ALGORITHMS": "the server does not accept the kind of key in `tls_key_file`; make one"
    f" that is {_USABLE_KEYS}",
    "PUBLIC_KEY_DECODE_ERROR": "the authority in `tls_ca_file` has a key that this client cannot read; make"
    f" one that is {_USABLE_KEYS}",
    "Failed to create security handshaker": "the PEM files for TLS cannot be used; check `tls_ca_file`,"
    " `tls_certificate_file` and `tls_key_file`",
    "Unwrap failed": "the server ended the TLS connection; if it wants a client certificate, set"
    " `tls_certificate_file` and `tls_key_file` to one from an authority that it trusts",
}
"""What to do about a connection that cannot be made, by what gRPC says of it; the last that fits counts."""
_ALSO_OF_A_STOP = "Socket closed"
"""A server that stops closes connections, too, so this does not tell that client and server differ."""


class CallError(AuthzError):
    """A call that failed. `str(error)` names the input and the remedy if the server knew them.

    `code` is the gRPC status. `reason` is a name of `authz.v1.ErrorReason` without its prefix, or empty if
    no server gave one, and `metadata` the fields of its `ErrorInfo`. `is_misconfigured` says that trying
    again does not help: client and server differ about TLS. `is_unsent` says that no server has the call,
    because none was connected. `tls_remedy` is what to change if they may
    differ, and else empty. `retry_after_s` is how long the server asks to wait before the call is made
    again; 0 if it does not say. `faults` are those of a policy, as many as fit into the error of a call.
    """

    reason: str  # type: ignore[assignment]  # a server of a later release may name one that is not known here
    is_misconfigured = False
    is_unsent = False
    tls_remedy = ""
    faults: tuple[PolicyFault, ...] = ()

    def __init__(self, code: grpc.StatusCode, reason: str, message: str) -> None:
        super().__init__(reason, message)  # type: ignore[arg-type]  # as above
        self.code = code


class RefusedError(Exception):
    """The application must not serve the request. `str(error)` is safe to show to the sender.

    `status` is an HTTP status: 403 not allowed, 404 no such id can exist, 503 no decision is possible now.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def error_of(failure: Any) -> CallError:
    """The error for a failed call (a `grpc.RpcError`), with the reason from its `google.rpc.ErrorInfo`."""
    code: grpc.StatusCode = failure.code()
    if code is grpc.StatusCode.CANCELLED and _CLOSED_MEANWHILE in (failure.details() or ""):
        return closed()
    status = status_pb2.Status()
    for name, value in failure.trailing_metadata() or ():
        if name == "grpc-status-details-bin":
            status.ParseFromString(value)
    info, details = _detail(status, error_details_pb2.ErrorInfo()), failure.details() or code.name
    reason = str(info.reason)
    if details.startswith(_OF_A_PROXY):
        http_status = details.removeprefix(_OF_A_PROXY)
        details = f"a proxy answered for the server, with the HTTP status {http_status}; its log says why"
    error = CallError(code, reason, details)
    for cause, remedy in _REMEDIES.items():
        if details.startswith(_NOT_CONNECTED) and cause in details:
            error = CallError(code, reason, f"{remedy} ({details})")
            error.tls_remedy, error.is_misconfigured = remedy, _ALSO_OF_A_STOP not in cause
    error.is_unsent = details.startswith(_UNSENT)
    error.metadata = dict(info.metadata)
    if reason == ErrorReason.POLICY_INVALID:
        violations = _detail(status, error_details_pb2.BadRequest()).field_violations
        error.faults = tuple(parse_fault(each.field, each.description) for each in violations)
    retry = _detail(status, error_details_pb2.RetryInfo())
    error.retry_after_s = retry.retry_delay.ToMilliseconds() / 1000
    return error


def code_name(error: AuthzError) -> str:
    """The name of the gRPC status of an error, also of one that was raised before a call."""
    return error.code.name if isinstance(error, CallError) else code_of_tree(error)


def closed() -> CallError:
    """The error for a call of a client that is closed."""
    return CallError(grpc.StatusCode.CANCELLED, "", "the client is closed; make another one")


def silence(idle_timeout_s: float) -> CallError:
    """The error for a stream on which nothing came, not even a checkpoint."""
    text = f"the server sent nothing for {idle_timeout_s:g} s; watch again"
    return CallError(grpc.StatusCode.UNAVAILABLE, "", text)


class ItemFault(msgspec.Struct, frozen=True):
    """The error of one question of a batch. Falsy, with `allowed` False, like a denial, for every action."""

    reason: str
    message: str
    allowed: Literal[False] = False

    def __bool__(self) -> bool:
        """False: nothing was allowed."""
        return False

    def __getitem__(self, action: str) -> Self:
        """The same for one action, where `ResourceActions` has an answer: `if actions["update"]` is safe."""
        return self


def fault_of(status: status_pb2.Status) -> ItemFault:
    """The fault of one question, with the reason from its `google.rpc.ErrorInfo`."""
    return ItemFault(_detail(status, error_details_pb2.ErrorInfo()).reason, status.message)


def _detail(status: status_pb2.Status, kind: MessageT) -> MessageT:
    """The first detail of a kind, else an empty one."""
    for detail in status.details:
        if detail.Unpack(kind):
            break
    return kind
