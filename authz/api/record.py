"""Request ids, and a log line for each call."""

from __future__ import annotations

import logging
import time

import msgspec
import structlog

from authz.api.call import Call, Outcome, new_ids
from authz.api.decisions import DecisionRecorder
from authz.domain.errors import AuthzError, ErrorReason, PermissionDeniedError
from authz.domain.ids import is_id, parse_id
from authz.telemetry.metrics import CALL_DURATION
from authz.wire.errors import code_name

REQUEST_ID_HEADER = "x-request-id"

log = structlog.get_logger()
_threshold = logging.getLogger("authz")
"""Its level is set at start. Reading the level costs far less than building a log line that is dropped."""


def is_debug_enabled() -> bool:
    """Whether lines of level debug are written."""
    return _threshold.level == logging.DEBUG


OK = Outcome("OK")
CANCELLED = Outcome("CANCELLED")
"""The call ended with neither an answer nor an error."""


def outcome_of(error: Exception) -> Outcome:
    """How a call ended that raised."""
    if isinstance(error, AuthzError):
        return Outcome(code_name(error), error.reason.value, "; ".join(error.notes), error.ended_call)
    return Outcome("INTERNAL", ErrorReason.INTERNAL.value)


def refused(outcome: Outcome, error: PermissionDeniedError) -> Outcome:
    """How a call ended of which a part was refused."""
    return Outcome(outcome.code, outcome.reason or error.reason.value, outcome.cause)


class Recorder:
    """Tells calls apart, and logs who called what and how it ended, but nothing of its content: that is for
    the decision log.

    No header is read and no line is made for a decision that is answered, unless at level debug.
    """

    def __init__(self, decisions: DecisionRecorder | None = None) -> None:
        self._decisions = decisions
        self._ids = new_ids()

    def identify(self, call: Call) -> Call:
        """The call with a request id, if its line will be written. Raises `InvalidArgumentError`
        (MALFORMED_ID) for a malformed id in the request."""
        if call.request_id:
            parse_id(call.request_id, field="request_id")
        return call if _is_silent(call, OK) else self.with_request_id(call)

    def with_request_id(self, call: Call) -> Call:
        """The call with the request id of the request, else of the header, else a new one.

        A malformed one is ignored: a proxy may have set the header, not the caller.
        """
        if is_id(call.request_id):
            return call
        stated = call.transport.header(REQUEST_ID_HEADER)
        request_id = stated if is_id(stated) else next(self._ids)
        return msgspec.structs.replace(call, request_id=request_id)

    def record(self, call: Call, request: object, outcome: Outcome, started: float) -> None:
        """Count, and log, how a call ended that started at a time of `time.perf_counter`."""
        duration_s = time.perf_counter() - started
        CALL_DURATION.labels(call.method.name.removeprefix("/"), outcome.code, call.principal.kind).observe(
            duration_s
        )
        if self._decisions is not None:
            self._decisions.record(call, request, outcome, duration_s)
        if _threshold.level > logging.INFO or _is_silent(call, outcome):
            return
        log.info(
            "call",
            method=call.method.name,
            code=outcome.code,
            **({"reason": outcome.reason} if outcome.reason else {}),
            **({"cause": outcome.cause} if outcome.cause else {}),
            request_id=self.with_request_id(call).request_id,
            caller=call.principal.actor,
            elapsed_ms=round(duration_s * 1000, 3),
        )

    @staticmethod
    def warn_of_refusal(call: Call, error: AuthzError) -> None:
        """Log each call that was refused for its caller."""
        log.warning(
            "caller refused",
            caller=call.principal.actor,
            method=call.method.name,
            reason=error.reason.value,
            **({"permission": error.metadata["permission"]} if "permission" in error.metadata else {}),
            error=error.message,
            request_id=call.request_id,
        )


def _is_silent(call: Call, outcome: Outcome) -> bool:
    return outcome is OK and call.method.is_decision and not is_debug_enabled()
