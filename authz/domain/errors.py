"""Every error that the service raises on purpose.

AuthzError
├── InvalidArgumentError      the request itself is malformed; sending it again cannot help
├── AlreadyExistsError        create of what is there
├── FailedPreconditionError   a precondition, a reference or an invariant does not hold
├── ConflictError             lost a race; trying again may help
├── SlowConsumerError         a watch whose reader was too slow; goes on from where it stopped
├── OutOfRangeError           a token from before or beyond what the change log holds
├── OverloadedError           shed; try again after `retry_after_s`
├── UnavailableError          not loaded, too stale, or the database is away
├── PolicyError               a policy with faults; stops the start
└── InternalError             a fault of the service; says nothing of its cause

A denial is not here: denied is an answer.
"""

from __future__ import annotations

from enum import StrEnum


class ErrorReason(StrEnum):
    """Machine-readable cause. The names are those of `authz.v1.ErrorReason` without its prefix."""

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
    SCOPE_IMMUTABLE = "SCOPE_IMMUTABLE"
    WRITE_CONFLICT = "WRITE_CONFLICT"
    OVERLOADED = "OVERLOADED"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    NOT_FRESH_ENOUGH = "NOT_FRESH_ENOUGH"
    POLICY_INVALID = "POLICY_INVALID"
    INTERNAL = "INTERNAL"
    WATCH_FELL_BEHIND = "WATCH_FELL_BEHIND"
    TOKEN_EXPIRED = "TOKEN_EXPIRED"  # noqa: S105  the name of an error, not a secret
    REPLICA_NOT_READY = "REPLICA_NOT_READY"
    TOO_STALE = "TOO_STALE"


class AuthzError(Exception):
    """Root of the tree. `str(error)` is fit for a client: it names the input and the remedy."""

    def __init__(self, reason: ErrorReason, message: str, **metadata: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = metadata

    def locate(self, place: str) -> None:
        """Say where in a request it is: `mutations[7]`, say."""
        self.message = f"{place}: {self.message}"
        self.args = (self.message,)


class InvalidArgumentError(AuthzError):
    """The request itself is malformed."""


class AlreadyExistsError(AuthzError):
    """Create of what is there."""


class FailedPreconditionError(AuthzError):
    """A precondition, a reference or an invariant does not hold."""


class ConflictError(AuthzError):
    """Lost a race against another write; the same call may succeed when tried again."""


class SlowConsumerError(AuthzError):
    """A watch whose reader was too slow. `resume_after` is the token from which nothing is lost."""

    def __init__(self, message: str, *, resume_after: str) -> None:
        super().__init__(ErrorReason.WATCH_FELL_BEHIND, message, resume_after=resume_after)


class OutOfRangeError(AuthzError):
    """A token from before or beyond what the change log holds; read anew and start from there."""


class OverloadedError(AuthzError):
    """Shed to protect the calls in flight."""

    def __init__(self, message: str, *, retry_after_s: float, **metadata: str) -> None:
        super().__init__(ErrorReason.OVERLOADED, message, **metadata)
        self.retry_after_s = retry_after_s


class UnavailableError(AuthzError):
    """Not loaded, too stale, or the database is away."""


class InternalError(AuthzError):
    """A fault of the service. Names no cause, only the request id under which the logs have it."""

    def __init__(self, request_id: str) -> None:
        super().__init__(
            ErrorReason.INTERNAL,
            f"internal error; quote request id `{request_id}` to the operator",
            request_id=request_id,
        )


class PolicyError(AuthzError):
    """A policy with faults, refused whole. `faults` has one line each: `file:line:column: text`."""

    def __init__(self, faults: tuple[str, ...]) -> None:
        noun = "fault" if len(faults) == 1 else "faults"
        super().__init__(
            ErrorReason.POLICY_INVALID,
            f"the policy has {len(faults)} {noun}:\n" + "\n".join(faults),
        )
        self.faults = faults
