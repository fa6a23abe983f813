"""Every error that the service raises intentionally.

AuthzError
├── InvalidArgumentError      the request is malformed; a retry cannot succeed
├── UnauthenticatedError      the call has no credential, or an invalid one
├── PermissionDeniedError     the caller, or the person that the call is made for, lacks a permission
├── NotFoundError             what was to be read by its name does not exist
├── AlreadyExistsError        the entity to create exists
├── FailedPreconditionError   a precondition, a reference or an invariant does not hold
├── ConflictError             lost a race; a retry may succeed
├── RemovalPendingError       what has the same key is still being removed; retry after `retry_after_s`
├── SlowConsumerError         a watch whose client read too slowly; resumes where it stopped
├── ImportEndedError          an import that the server ended; what it had written stays
├── UnknownMethodError        the server has no such method
├── OutOfRangeError           a token outside the range of the change log
├── OverloadedError           shed to limit load; retry after `retry_after_s`
├── UnavailableError          not loaded, too stale, or the database is down
│   └── UnusablePolicyError   the active policy is missing, or of another release
├── PolicyError               a policy with faults; is not applied
└── InternalError             a fault of the service; does not name its cause

A denial is an answer, not an error.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple, Self, TypeVar

T = TypeVar("T")


class ErrorReason(StrEnum):
    """Machine-readable cause: the names of `authz.v1.ErrorReason` without their prefix."""

    MALFORMED_ID = "MALFORMED_ID"
    MALFORMED_FIELD = "MALFORMED_FIELD"
    MISSING_FIELD = "MISSING_FIELD"
    UNKNOWN_TYPE = "UNKNOWN_TYPE"
    UNKNOWN_ACTION = "UNKNOWN_ACTION"
    UNKNOWN_ROLE = "UNKNOWN_ROLE"
    MALFORMED_TOKEN = "MALFORMED_TOKEN"  # noqa: S105  the name of an error, not a secret
    TOO_MANY_ITEMS = "TOO_MANY_ITEMS"
    DUPLICATE_MUTATION = "DUPLICATE_MUTATION"
    IDEMPOTENCY_KEY_REUSED = "IDEMPOTENCY_KEY_REUSED"
    ENTITY_EXISTS = "ENTITY_EXISTS"
    PRECONDITION_FAILED = "PRECONDITION_FAILED"
    REFERENCE_NOT_FOUND = "REFERENCE_NOT_FOUND"
    SUBJECT_NOT_A_MEMBER = "SUBJECT_NOT_A_MEMBER"
    SCOPE_IMMUTABLE = "SCOPE_IMMUTABLE"
    WRITE_CONFLICT = "WRITE_CONFLICT"
    BEING_REMOVED = "BEING_REMOVED"
    OVERLOADED = "OVERLOADED"
    LIMIT_EXCEEDED = "LIMIT_EXCEEDED"
    SERVER_STOPPING = "SERVER_STOPPING"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    STORE_FULL = "STORE_FULL"
    STORE_READ_ONLY = "STORE_READ_ONLY"
    STORE_REPLACED = "STORE_REPLACED"
    STORE_MISCONFIGURED = "STORE_MISCONFIGURED"
    NOT_FRESH_ENOUGH = "NOT_FRESH_ENOUGH"
    POLICY_INVALID = "POLICY_INVALID"
    INVARIANTS_WEAKENED = "INVARIANTS_WEAKENED"
    POLICY_UNUSABLE = "POLICY_UNUSABLE"
    VERSION_NOT_FOUND = "VERSION_NOT_FOUND"
    DRAFT_NOT_FOUND = "DRAFT_NOT_FOUND"
    TOO_MANY_DRAFTS = "TOO_MANY_DRAFTS"
    LAST_ADMINISTRATOR = "LAST_ADMINISTRATOR"
    SUBJECT_ERASED = "SUBJECT_ERASED"
    SUBJECT_HELD = "SUBJECT_HELD"
    PERMISSION_MISSING = "PERMISSION_MISSING"
    INTERNAL = "INTERNAL"
    WATCH_FELL_BEHIND = "WATCH_FELL_BEHIND"
    TOKEN_EXPIRED = "TOKEN_EXPIRED"  # noqa: S105  the name of an error, not a secret
    REPLICA_NOT_READY = "REPLICA_NOT_READY"
    TOO_STALE = "TOO_STALE"
    WATCH_TIME_OVER = "WATCH_TIME_OVER"
    IMPORT_ENDED = "IMPORT_ENDED"
    UNKNOWN_METHOD = "UNKNOWN_METHOD"
    CREDENTIAL_MISSING = "CREDENTIAL_MISSING"
    CREDENTIAL_INVALID = "CREDENTIAL_INVALID"
    CREDENTIALS_UNVERIFIABLE = "CREDENTIALS_UNVERIFIABLE"


class AuthzError(Exception):
    """Root of the tree. `str(error)` may be shown to a client: it names the input and the remedy."""

    ended_call = False
    """Whether it refused a call that was permitted at first, and may have told its caller something."""
    retry_after_s = 0.0
    """How long to wait before the call is made again; 0 if that is for the client to choose."""

    def __init__(self, reason: ErrorReason, message: str, **metadata: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = metadata

    def __copy__(self) -> Self:
        """The same error, to be changed for one of several callers that share it."""
        copied = type(self).__new__(type(self), *self.args)
        copied.__dict__ |= self.__dict__ | {"metadata": dict(self.metadata)}
        return copied

    @property
    def notes(self) -> list[str]:
        """What only the operator may see, such as the message of a driver: see `add_note`."""
        return getattr(self, "__notes__", [])

    def with_notes(self) -> str:
        """The message for the operator."""
        return " ".join([self.message, *(f"({note})" for note in self.notes)])

    def locate(self, path: str) -> None:
        """Prefix the message with the position in the request, for example `mutations[7]`."""
        self.message = f"{path}: {self.message}"
        self.args = (self.message,)

    def name_field(self, name: str) -> None:
        """Name the field, with which the message begins, as its user knows it."""
        self.message = name + self.message.removeprefix(self.metadata["field"])
        self.metadata["field"] = name
        self.args = (self.message,)

    def append(self, text: str) -> None:
        """Add to the end of the message."""
        self.message += text
        self.args = (self.message,)


class InvalidArgumentError(AuthzError):
    """The request is malformed."""


class UnauthenticatedError(AuthzError):
    """The call has no credential, or an invalid one. The message never quotes a credential."""


class NotFoundError(AuthzError):
    """What was to be read by its name does not exist."""


class AlreadyExistsError(AuthzError):
    """The entity to create exists."""


class FailedPreconditionError(AuthzError):
    """A precondition, a reference or an invariant does not hold."""


class ConflictError(AuthzError):
    """Lost a race against another write; a retry of the same call may succeed."""

    def __init__(self, message: str, **metadata: str) -> None:
        super().__init__(ErrorReason.WRITE_CONFLICT, message, **metadata)


class RemovalPendingError(AuthzError):
    """The key is not free before a removal that is still running ends. Retry after `retry_after_s`."""

    def __init__(self, message: str, *, retry_after_s: float, **metadata: str) -> None:
        super().__init__(ErrorReason.BEING_REMOVED, message, **metadata)
        self.retry_after_s = retry_after_s


class SlowConsumerError(AuthzError):
    """A watch whose client read too slowly. Resuming after `resume_after` loses nothing."""

    def __init__(self, message: str, *, resume_after: str) -> None:
        super().__init__(ErrorReason.WATCH_FELL_BEHIND, message, resume_after=resume_after)


class ImportEndedError(AuthzError):
    """An import that the server ended: its client was silent for too long, or it took too long. The message
    and the metadata say what was written before."""


class PermissionDeniedError(AuthzError):
    """The caller, or the person that the call is made for, lacks a permission. `permission` names it."""

    def __init__(self, message: str, *, permission: str, **metadata: str) -> None:
        super().__init__(ErrorReason.PERMISSION_MISSING, message, permission=permission, **metadata)


class UnknownMethodError(AuthzError):
    """The server has no such method."""

    def __init__(self) -> None:
        super().__init__(
            ErrorReason.UNKNOWN_METHOD,
            "the server has no such method; it may be of an earlier release than the client",
        )


class OutOfRangeError(AuthzError):
    """A token outside the range of the change log; read the directory again and start from there."""

    def __init__(self, message: str, **metadata: str) -> None:
        super().__init__(ErrorReason.TOKEN_EXPIRED, message, **metadata)


class OverloadedError(AuthzError):
    """Shed to protect the calls in flight, or the calls of other callers. Retry after `retry_after_s`."""

    def __init__(
        self,
        message: str,
        *,
        retry_after_s: float,
        reason: ErrorReason = ErrorReason.OVERLOADED,
        **metadata: str,
    ) -> None:
        super().__init__(reason, message, **metadata)
        self.retry_after_s = retry_after_s


class UnavailableError(AuthzError):
    """Not loaded, too stale, or the database is down."""

    def __init__(
        self, reason: ErrorReason, message: str, *, retry_after_s: float = 0.0, **metadata: str
    ) -> None:
        super().__init__(reason, message, **metadata)
        self.retry_after_s = retry_after_s


NO_ANSWER = "the database does not answer; try again later"
"""The message of STORE_UNAVAILABLE where nothing more is known."""
_RETRY_AFTER_S = 2.0
"""As often as a server probes its database."""


def no_answer(message: str = NO_ANSWER) -> UnavailableError:
    """The error of a call that has waited for a database which hangs."""
    return UnavailableError(ErrorReason.STORE_UNAVAILABLE, message, retry_after_s=_RETRY_AFTER_S)


class InternalError(AuthzError):
    """A fault of the service. Does not name its cause; the logs have it under the request id."""

    def __init__(self, request_id: str) -> None:
        super().__init__(
            ErrorReason.INTERNAL,
            f"internal error; quote request id `{request_id}` to the operator",
            request_id=request_id,
        )


_UPGRADE = "upgrade this server to the release that the version was applied with, or call another server"


class UnusablePolicyError(UnavailableError):
    """The active version of the policy cannot be used by this process, so it decides nothing."""

    def __init__(self, problem: str, remedy: str = _UPGRADE) -> None:
        super().__init__(ErrorReason.POLICY_UNUSABLE, f"{problem}; {remedy}")


class PolicyFault(NamedTuple):
    """What is wrong at one place of a policy, and what to do. Lines and columns count from 1."""

    file: str
    line: int
    column: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.text}"


class PolicyWarning(NamedTuple):
    """What is legal in a policy, and surprising. `where` is the `file:line` of a rule, or names a role.
    `role` is that of the rule."""

    where: str
    text: str
    role: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


class PolicyError(AuthzError):
    """A policy with faults, refused as a whole."""

    def __init__(self, faults: tuple[PolicyFault, ...]) -> None:
        noun = "fault" if len(faults) == 1 else "faults"
        super().__init__(
            ErrorReason.POLICY_INVALID,
            f"the policy has {len(faults)} {noun}:\n" + "\n".join(map(str, faults)),
        )
        self.faults = faults


def result_or_error(compute: Callable[[], T]) -> T | AuthzError:
    """What a function returns, or the error that it raises: of one item among many, the others go on."""
    try:
        return compute()
    except AuthzError as error:
        return error


def escaped(text: str) -> str:
    r"""The text of somebody else on one line: `\n` and `\x1b` in place of what a terminal would obey."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def malformed(field: str, problem: str) -> InvalidArgumentError:
    """The error for a field with a value that it cannot have; `problem` continues the name of the field."""
    return invalid(field, f"{field} {problem}")


def invalid(field: str, message: str) -> InvalidArgumentError:
    """As `malformed`, of a field or a setting, with a message that begins otherwise than with its name."""
    return InvalidArgumentError(ErrorReason.MALFORMED_FIELD, message, field=field)


def precondition_failed(message: str, **metadata: str) -> FailedPreconditionError:
    """The error for what is not so, and for which there is no reason of its own."""
    return FailedPreconditionError(ErrorReason.PRECONDITION_FAILED, message, **metadata)
