"""The steps around every call: in order, each of them able to end the call, and the call always recorded."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from authz.access.authentication import Authenticator, Transport
from authz.access.permission import AllowAll, CallerRights, Permissions
from authz.access.principal import Principal
from authz.api import recheck
from authz.api.call import Call, CallKind, Method
from authz.api.pipeline import Pipeline
from authz.domain.errors import (
    AlreadyExistsError,
    AuthzError,
    ErrorReason,
    FailedPreconditionError,
    InternalError,
    InvalidArgumentError,
    OverloadedError,
    PermissionDeniedError,
)
from authz.runtime.logs import configure_logging
from tests.api.in_process import ByNameAuthenticator, Request

CHECK = Method("/authz.v1.AuthorizationService/Check", CallKind.DECISION)
WRITE = Method("/authz.v1.DirectoryService/Write", CallKind.WRITE)
WATCH = Method("/authz.v1.WatchService/Watch", CallKind.WATCH, server_streams=True)
BY_CERTIFICATE, ALLOW = ByNameAuthenticator(), AllowAll()
REFUSED = FailedPreconditionError(ErrorReason.PRECONDITION_FAILED, "refused")


@pytest.fixture(autouse=True)
def info_level() -> None:
    """Log as a server does by default."""
    configure_logging("info")


def pipeline_of(authenticator: Authenticator = BY_CERTIFICATE, permissions: Permissions = ALLOW) -> Pipeline:
    """A pipeline with room for two calls and one watch."""
    return Pipeline(
        authenticators=(authenticator,),
        permissions=permissions,
        concurrency_limits=dict.fromkeys(CallKind, 2) | {CallKind.WATCH: 1},
    )


async def seen(request: str, call: Call) -> tuple[str, Call]:
    """Runs a call: returns what it was given."""
    return request, call


def failing(error: Exception) -> Callable[[str, Call], Awaitable[None]]:
    async def run(_request: str, _call: Call) -> None:
        raise error

    return run


async def served(
    pipeline: Pipeline,
    run: Callable[[str, Call], Awaitable[Any]] = seen,
    method: Method = WRITE,
    transport: Request | None = None,
    *,
    sends: bool = True,
    **given: Any,
) -> tuple[Any, list[Any]]:
    """What one call gives, an answer or an error, and its log lines."""
    transport = transport or Request({})
    call = Call(method=method, transport=transport, **given)
    with capture_logs() as lines:
        try:
            return await pipeline.serve(call, run, "question"), lines
        except AuthzError as error:
            return error, lines
        finally:
            if sends:
                transport.send()


async def test_a_call_is_run_with_its_principal_and_request_id_and_recorded() -> None:
    transport = Request({"x-request-id": "r-1"}, "roster-sync")
    (request, call), (line,) = await served(pipeline_of(), transport=transport, deadline=7.5)
    assert (request, call.request_id, call.deadline) == ("question", "r-1", 7.5)
    assert call.principal.actor == "service:roster-sync"
    assert line.pop("elapsed_ms") >= 0
    assert line == {
        "event": "call",
        "log_level": "info",
        "method": "/authz.v1.DirectoryService/Write",
        "code": "OK",
        "request_id": "r-1",
        "caller": "service:roster-sync",
    }


@pytest.mark.parametrize(
    ("stated", "header", "expected"),
    [
        ("of-the-field", "of-the-header", "of-the-field"),
        ("", "of-the-header", "of-the-header"),
        ("", "not an id", r"[0-9a-f]{12}-1"),
        ("", "", r"[0-9a-f]{12}-1"),
    ],
)
async def test_a_request_id_is_the_callers_or_made_up(stated: str, header: str, expected: str) -> None:
    transport = Request({"x-request-id": header})
    (_, call), (line,) = await served(pipeline_of(), transport=transport, request_id=stated)
    assert re.fullmatch(expected, call.request_id)
    assert line["request_id"] == call.request_id


@pytest.mark.parametrize("method", [CHECK, WRITE])
async def test_a_malformed_request_id_in_the_request_is_refused(method: Method) -> None:
    error, (line,) = await served(pipeline_of(), method=method, request_id="not an id")
    assert isinstance(error, InvalidArgumentError)
    assert error.reason is ErrorReason.MALFORMED_ID
    assert (line["code"], line["reason"]) == ("INVALID_ARGUMENT", "MALFORMED_ID")
    assert "not an id" not in str(line)


async def test_an_error_that_calls_share_says_of_each_what_it_has_done() -> None:
    def add_to(error: AuthzError) -> None:
        error.append("; written 3")
        error.metadata["written"] = "3"

    error, _ = await served(pipeline_of(), failing(REFUSED), failure_details=[add_to])
    assert (type(error), error.reason) == (FailedPreconditionError, ErrorReason.PRECONDITION_FAILED)
    assert (str(error), error.message, error.metadata) == ("refused; written 3",) * 2 + ({"written": "3"},)
    assert (str(REFUSED), REFUSED.message, REFUSED.metadata) == ("refused", "refused", {})


async def test_a_decision_that_is_answered_leaves_no_line_and_reads_no_header() -> None:
    transport = Request({"x-request-id": "r-1"})
    answer, lines = await served(pipeline_of(), method=CHECK, transport=transport)
    assert (answer[0], lines, transport.headers_read) == ("question", [], [])


async def test_a_decision_that_fails_is_recorded_with_its_request_id() -> None:
    error = AlreadyExistsError(ErrorReason.ENTITY_EXISTS, "it is there")
    transport = Request({"x-request-id": "r-1"})
    raised, (line,) = await served(pipeline_of(), failing(error), CHECK, transport)
    assert raised is error
    assert (line["code"], line["reason"], line["request_id"]) == ("ALREADY_EXISTS", "ENTITY_EXISTS", "r-1")


async def test_at_debug_every_decision_is_recorded() -> None:
    configure_logging("debug")
    _, (line,) = await served(pipeline_of(), method=CHECK)
    assert (line["code"], line["method"]) == ("OK", CHECK.name)


async def test_a_fault_hides_its_cause_from_the_client_and_shows_it_in_the_logs() -> None:
    error, lines = await served(pipeline_of(), failing(RuntimeError("secret")), request_id="r-1")
    assert isinstance(error, InternalError)
    assert "secret" not in error.message
    assert error.metadata == {"request_id": "r-1"}
    assert error.__suppress_context__
    assert [(line["event"], line["request_id"]) for line in lines] == [
        ("call failed", "r-1"),
        ("call", "r-1"),
    ]
    assert str(lines[0]["exc_info"]) == "secret"
    assert (lines[1]["code"], lines[1]["reason"]) == ("INTERNAL", "INTERNAL")


async def test_who_is_not_permitted_gets_an_error_before_anything_is_run() -> None:
    asked: list[tuple[str, float | None]] = []

    class RefuseAll:
        async def rights_of(self, principal: Principal, deadline: float | None) -> CallerRights:
            asked.append((principal.actor, deadline))
            raise REFUSED

    transport = Request({}, "roster-sync")
    error, (line,) = await served(
        pipeline_of(permissions=RefuseAll()), failing(AssertionError()), WRITE, transport, deadline=7.5
    )
    assert error is REFUSED
    assert asked == [("service:roster-sync", 7.5)]
    assert (line["code"], line["caller"]) == ("FAILED_PRECONDITION", "service:roster-sync")


async def test_a_decision_that_had_to_wait_is_not_answered_to_a_caller_who_lost_the_right_to_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(recheck, "INTERVAL_S", 0)

    class Revoked:
        rights = CallerRights(frozenset({"check"}))

        async def rights_of(self, _principal: Principal, _deadline: float | None) -> CallerRights:
            return self.rights

    permissions = Revoked()

    async def revoked_while_it_waits(_request: str, _call: Call) -> str:
        permissions.rights = CallerRights()
        return "allowed"

    error, lines = await served(pipeline_of(permissions=permissions), revoked_while_it_waits, CHECK)
    assert isinstance(error, PermissionDeniedError)
    assert error.ended_call
    assert [line["code"] for line in lines if "code" in line] == ["PERMISSION_DENIED"]


async def test_a_credential_that_is_not_valid_ends_the_call_before_permissions_are_asked() -> None:
    class Invalid:
        def authenticate(self, _transport: Transport) -> Principal | None:
            raise REFUSED

    class Unreachable:
        async def rights_of(self, _principal: Principal, _deadline: float | None) -> CallerRights:
            raise AssertionError

    error, (line,) = await served(pipeline_of(Invalid(), Unreachable()))
    assert error is REFUSED
    assert line["caller"] == "unauthenticated"


async def test_a_call_beyond_the_limit_is_shed_and_room_is_free_again_after_any_end() -> None:
    pipeline, ended = pipeline_of(), asyncio.Event()

    async def wait(_request: str, _call: Call) -> str:
        await ended.wait()
        return "answered"

    running = [asyncio.ensure_future(served(pipeline, wait)) for _ in range(2)]
    await asyncio.sleep(0)
    error, (line,) = await served(pipeline)
    assert isinstance(error, OverloadedError)
    assert (error.retry_after_s, error.metadata) == (0.1, {"limit": "2"})
    assert (line["code"], line["reason"]) == ("RESOURCE_EXHAUSTED", "OVERLOADED")
    watched, _ = await served(pipeline, method=WATCH)  # it has room of its own
    assert watched[0] == "question"
    ended.set()
    assert [answer for answer, _ in await asyncio.gather(*running)] == ["answered"] * 2
    for _ in range(3):
        error, _ = await served(pipeline, failing(REFUSED))
        assert error is REFUSED
    answer, _ = await served(pipeline)
    assert answer[0] == "question"


async def test_a_place_is_held_until_the_answer_is_sent() -> None:
    pipeline, slow = pipeline_of(), [Request({}) for _ in range(2)]
    for transport in slow:
        answer, _ = await served(pipeline, transport=transport, sends=False)
        assert answer[0] == "question"
    error, _ = await served(pipeline)
    assert isinstance(error, OverloadedError)
    slow[0].send()
    answer, _ = await served(pipeline)
    assert answer[0] == "question"


@pytest.mark.parametrize("greedy", list(CallKind))
async def test_no_kind_of_call_takes_the_places_of_another(greedy: CallKind) -> None:
    pipeline = pipeline_of()
    for _ in range(3):
        await served(pipeline, method=Method("/greedy", greedy), sends=False)
    for kind in set(CallKind) - {greedy}:
        answer, _ = await served(pipeline, method=Method("/modest", kind))
        assert not isinstance(answer, AuthzError)


async def test_a_watch_that_has_ended_counts_only_against_its_connection() -> None:
    pipeline, stuck = pipeline_of(), Request({}, connection="a")
    await served(pipeline, method=WATCH, transport=stuck, sends=False)
    error, _ = await served(pipeline, method=WATCH, transport=Request({}, connection="a"))
    assert isinstance(error, OverloadedError)
    answer, _ = await served(pipeline, method=WATCH, transport=Request({}, connection="b"))
    assert answer[0] == "question"
    stuck.send()
    answer, _ = await served(pipeline, method=WATCH, transport=Request({}, connection="a"))
    assert answer[0] == "question"


async def test_a_watch_beyond_its_limit_is_shed() -> None:
    pipeline, begun = pipeline_of(), asyncio.Event()

    async def watch(_request: str, _call: Call) -> None:
        begun.set()
        await asyncio.Event().wait()

    running = asyncio.ensure_future(served(pipeline, watch, WATCH))
    await begun.wait()
    error, _ = await served(pipeline, method=WATCH)
    assert isinstance(error, OverloadedError)
    assert "more than 1 watches in flight" in error.message
    running.cancel()
    await asyncio.wait({running})
    answer, _ = await served(pipeline, method=WATCH)
    assert answer[0] == "question"


async def test_a_call_that_is_cancelled_is_recorded_as_such() -> None:
    async def wait(_request: str, _call: Call) -> None:
        await asyncio.Event().wait()

    with capture_logs() as lines:
        call = Call(method=CHECK, transport=Request({"x-request-id": "r-1"}))
        running = asyncio.ensure_future(pipeline_of().serve(call, wait, ""))
        await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    (line,) = lines
    assert (line["code"], line["request_id"], "reason" in line) == ("CANCELLED", "r-1", False)
