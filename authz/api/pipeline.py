"""The steps of every call, whatever its face: read `Pipeline.serve` from top to bottom."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from copy import copy
from functools import partial
from typing import Any, TypeVar, cast

import msgspec
import structlog

from authz.access.authentication import Authenticator, Transport, acting_for, authenticate
from authz.access.permission import ACT_FOR, Permissions
from authz.api.call import Call, CallKind
from authz.api.concurrency import ConcurrencyLimit
from authz.api.deadline import before_deadline
from authz.api.decisions import DecisionRecorder
from authz.api.limits import Limiter
from authz.api.recheck import Recheck
from authz.api.record import CANCELLED, OK, Recorder, outcome_of, refused
from authz.domain.errors import (
    AuthzError,
    ErrorReason,
    InternalError,
    OverloadedError,
    PermissionDeniedError,
    UnauthenticatedError,
    UnavailableError,
)
from authz.telemetry.metrics import SHED_CALLS

_CHANGING = (CallKind.WRITE, CallKind.POLICY)

RequestT = TypeVar("RequestT")
AnswerT = TypeVar("AnswerT")

log = structlog.get_logger()

_CONCURRENCY = "concurrency"
"""Why a call is shed, as the metrics have it."""


class Pipeline:
    """The steps around every call, with what they share between calls."""

    def __init__(
        self,
        *,
        authenticators: Sequence[Authenticator],
        permissions: Permissions,
        concurrency_limits: Mapping[CallKind, int],
        limiter: Limiter | None = None,
        decisions: DecisionRecorder | None = None,
        database_fault: Callable[[], str] = lambda: "",
    ) -> None:
        """`concurrency_limits` say how many calls of each kind may be in flight. Without a `limiter`, callers
        have no other limit. Without `decisions` there is no decision log, and no call collects what it
        decides. A call that waits for the database while it has a fault ends before its deadline."""
        self._authenticators = authenticators
        self._permissions = permissions
        self._concurrency_limits = concurrency_limits
        self._concurrency = self._new_limits()
        self._limiter = limiter
        for kind in concurrency_limits:
            SHED_CALLS.labels(kind, _CONCURRENCY)
        self._stopping = False
        self._keeps_decisions = decisions is not None
        self._recorder = Recorder(decisions)
        self._database_fault = database_fault

    def stop(self) -> None:
        """Refuse every call that comes from now on; those in flight continue."""
        self._stopping = True

    def calls_so_far(self) -> Callable[[], int]:
        """A function that counts which of the calls in flight now have not been sent their answer yet.

        Without watches, which never end by themselves. Later calls count against limits of their own.
        """
        before = [each for kind, each in self._concurrency.items() if kind is not CallKind.WATCH]
        watches = self._concurrency[CallKind.WATCH]
        self._concurrency = self._new_limits() | {CallKind.WATCH: watches}
        return lambda: sum(each.in_flight for each in before)

    def _new_limits(self) -> dict[CallKind, ConcurrencyLimit]:
        limits = self._concurrency_limits
        return {kind: ConcurrencyLimit(limit, f"{kind} in flight") for kind, limit in limits.items()}

    def require_credential(self, transport: Transport) -> None:
        """Raise as `authenticate` unless a call with this transport has a credential, if it needs one."""
        authenticate(self._authenticators, transport)

    async def serve(
        self, call: Call, run: Callable[[RequestT, Call], Awaitable[AnswerT]], request: RequestT
    ) -> AnswerT:
        """What `run` answers to the request of a call.

        Raises nothing but an `AuthzError` that is fit for a client. When this returns or raises, the line is
        written. The call counts as in flight until its transport has sent the answer or the error.
        """
        started = time.perf_counter()
        outcome = CANCELLED
        try:
            call = self._authenticate(call)
            if self._limiter is not None:
                self._limiter.admit(call)
            call = self._recorder.identify(call)
            call = await self._permit(call)
            self._admit(call)
            running: Awaitable[AnswerT] = self._run(call, run, request)
            # A call that needs no database never ends because of the database.
            if call.may_wait_for_database:
                running = before_deadline(running, call, self._database_fault)
            answer = await running
            outcome = OK
        except Exception as error:  # noqa: BLE001  nothing that fails may allow: whatever it is becomes an error
            outcome, call = outcome_of(error), self._recorder.with_request_id(call)
            if isinstance(error, PermissionDeniedError | UnauthenticatedError):
                self._recorder.warn_of_refusal(call, error)
            raise _answer(error, call) from None
        else:
            return answer
        finally:
            for refusal in call.refusal:
                self._recorder.warn_of_refusal(call, refusal)
                outcome = refused(outcome, refusal)
            self._recorder.record(call, request, outcome, started)

    def _authenticate(self, call: Call) -> Call:
        principal = authenticate(self._authenticators, call.transport)
        # A decision is about its subject, not about its caller.
        person = None if call.method.is_decision else acting_for(call.transport)
        if person is not None:
            principal = msgspec.structs.replace(principal, on_behalf_of=person)
        return call if principal is call.principal else msgspec.structs.replace(call, principal=principal)

    async def _permit(self, call: Call) -> Call:
        rights = await self._permissions.rights_of(call.principal, call.deadline)
        if call.method.permission:
            rights.require(call.method.permission, call.method.name)
        if call.principal.on_behalf_of is not None:
            rights.require(ACT_FOR, call.method.name)
        return msgspec.structs.replace(call, rights=rights, decided=[] if self._keeps_decisions else None)

    async def _run(
        self, call: Call, run: Callable[[RequestT, Call], Awaitable[AnswerT]], request: RequestT
    ) -> AnswerT:
        """Run a call; end one that may take long when its caller may no longer make it."""
        if call.method.kind is CallKind.IMPORT:
            permitted: Any = Recheck(partial(self._require_kept, call)).each(cast("Any", request))
            return await run(permitted, call)
        if call.method.kind in _CHANGING:
            # Its proof, or the writes of others, may take seconds before it changes anything. Once it has
            # changed something, its answer says so, also to a caller that it took the permission from.
            require = self._require_permitted if call.method.permission else self._require_kept
            recheck = Recheck(partial(require, call))
            return await run(request, msgspec.structs.replace(call, require_permitted=recheck.require))
        recheck = Recheck(partial(self._require_kept, call))
        if not (call.method.server_streams or call.may_wait_for_database):
            answer = await run(request, call)
            # It may have waited for its turn, or for a state in which its caller has lost the right to it.
            await recheck.require(at_once=call.asks_for_state)
            return answer
        try:
            answer = await recheck.result_of(run(request, call))
            if call.asks_for_state and not call.method.server_streams:
                await recheck.require(at_once=True)
            return answer
        finally:
            if call.method.kind is CallKind.WATCH:
                # Its client may never read the status: other clients must not wait for that.
                self._concurrency[CallKind.WATCH].release_to_others()

    async def _require_permitted(self, call: Call) -> None:
        await self._permit(self._authenticate(call))
        await _require_of_person(call)

    async def _require_kept(self, call: Call) -> None:
        now = await self._permit(self._authenticate(call))
        now.rights.require_kept(call.rights, call.method.name)
        await _require_of_person(call)

    def _admit(self, call: Call) -> None:
        """Count the call as in flight until the answer is sent, or the watch ends."""
        if self._stopping:
            raise UnavailableError(ErrorReason.SERVER_STOPPING, "the server is stopping; try again")
        kind, clients = call.method.kind, _clients(call)
        concurrency = self._concurrency[kind]
        try:
            concurrency.acquire(clients)
        except OverloadedError:
            SHED_CALLS.labels(kind, _CONCURRENCY).inc()
            raise
        release = concurrency.release_clients if kind is CallKind.WATCH else concurrency.release
        call.transport.when_sent(partial(release, clients))


async def _require_of_person(call: Call) -> None:
    """Raise unless the person on whose behalf the call is made still meets what it met before."""
    for require in call.person_requirements:
        await require()


def _clients(call: Call) -> list[str]:
    """The connection and the caller, as far as they are known."""
    connection, caller = call.transport.connection(), call.principal.caller
    clients = [connection] if connection else []
    return clients if caller is None else [*clients, str(caller)]


def _answer(error: Exception, call: Call) -> AuthzError:
    """The error that the client gets: no text of a driver and no stack."""
    if isinstance(error, AuthzError):
        answer = error
    else:
        log.error("call failed", method=call.method.name, request_id=call.request_id, exc_info=error)
        answer = InternalError(call.request_id)
    if call.failure_details:
        # Calls that wait for one query of the database share its error.
        answer = copy(answer)
        for add_to in call.failure_details:
            add_to(answer)
    return answer
