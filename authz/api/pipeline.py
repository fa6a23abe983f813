"""The one way for every call, whichever face it came by: `Pipeline.serve`, read from top to bottom."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import msgspec
import structlog

from authz.access.authentication import Authenticator, authenticate
from authz.access.permission import Permissions
from authz.api.call import Call
from authz.api.record import CANCELLED, OK, Recorder, outcome_of
from authz.domain.errors import AuthzError, ErrorReason, InternalError, OverloadedError, UnavailableError

RequestT = TypeVar("RequestT")
AnswerT = TypeVar("AnswerT")

_RETRY_AFTER_S = 0.1

log = structlog.get_logger()


class Limit:
    """Bounds how many calls of a kind are in flight: a context manager around each of them."""

    def __init__(self, most: int, what: str) -> None:
        self._most = most
        self._what = what
        self.in_flight = 0

    def __enter__(self) -> None:
        """Raise `OverloadedError` for a call that is one too many."""
        if self.in_flight >= self._most:
            raise OverloadedError(
                f"more than {self._most} {self._what}; try again",
                retry_after_s=_RETRY_AFTER_S,
                limit=str(self._most),
            )
        self.in_flight += 1

    def __exit__(self, *_: Any) -> None:
        self.in_flight -= 1


class Pipeline:
    """The steps around every call, with what they share between calls."""

    def __init__(
        self,
        *,
        authenticators: Sequence[Authenticator],
        permissions: Permissions,
        max_concurrent_calls: int,
        max_watches: int,
    ) -> None:
        self._authenticators = authenticators
        self._permissions = permissions
        self._calls = Limit(max_concurrent_calls, "calls in flight")
        self._watches = Limit(max_watches, "watches")
        self._stopping = False
        self._recorder = recorder = Recorder()
        self._identify, self._record = recorder.identify, recorder.record

    def stop(self) -> None:
        """Refuse every call that comes from now on; those in flight go on."""
        self._stopping = True

    @property
    def calls_in_flight(self) -> int:
        """How many calls have no answer yet, without watches, which never end by themselves."""
        return self._calls.in_flight

    async def serve(
        self, call: Call, run: Callable[[RequestT, Call], Awaitable[AnswerT]], request: RequestT
    ) -> AnswerT:
        """What `run` answers to the request of a call.

        Raises nothing but an `AuthzError` that is fit for a client. When this returns or raises, the line is
        written and the room is free, however long the face then takes to send the answer or the error.
        """
        started = time.perf_counter()
        outcome = CANCELLED
        try:
            call = self._identify(call)
            call = self._authenticate(call)
            self._permit(call)
            with self._admit(call):
                answer = await run(request, call)
            outcome = OK
        except Exception as error:  # noqa: BLE001  nothing that fails may allow: whatever it is becomes an error
            outcome, call = outcome_of(error), self._recorder.with_request_id(call)
            raise _answer(error, call) from None
        else:
            return answer
        finally:
            self._record(call, outcome, started)

    def _authenticate(self, call: Call) -> Call:
        principal = authenticate(self._authenticators, call.transport)
        return call if principal is call.principal else msgspec.structs.replace(call, principal=principal)

    def _permit(self, call: Call) -> None:
        self._permissions.require(call.principal, call.method.name)

    def _admit(self, call: Call) -> Limit:
        if self._stopping:
            raise UnavailableError(ErrorReason.STORE_UNAVAILABLE, "the server is stopping; try again")
        return self._watches if call.method.is_watch else self._calls


def _answer(error: Exception, call: Call) -> AuthzError:
    """The error that the client gets: no text of a driver and no stack."""
    if isinstance(error, AuthzError):
        return error
    log.error("call failed", method=call.method.name, request_id=call.request_id, exc_info=error)
    return InternalError(call.request_id)
