"""Every error has a status, a documented reason and an example; a fault of ours says nothing and denies."""

from __future__ import annotations

import asyncio
import base64
import inspect
import json
import re
import string
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2

from authz.domain import errors
from authz.domain.errors import AuthzError, ErrorReason, InvalidArgumentError, PolicyError, PolicyFault
from authz.engine.check import Checker
from authz.v1 import authorization_pb2 as apb
from authz.v1 import directory_pb2 as dpb
from authz.v1 import error_reason_pb2
from authz.v1 import policy_pb2 as ppb
from authz.wire.errors import STATUS_CODES, code_name, status_of
from tests import forkserver
from tests.api.test_api import COURSE, MATERIAL, STUDENT, question, written
from tests.api.test_policies import messages
from tests.policies import with_rows
from tests.service import Service, in_process, reason_of, serve

GRPC_SENDS = "".join({*string.printable} - {*string.whitespace} - {"%"}) + " "
"""What gRPC leaves as it is in the message of a status."""
PROTO = Path(__file__).parents[2] / "protos/authz/v1/error_reason.proto"


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["grpc", "envoy"])
async def refusing_service(request: pytest.FixtureRequest, shared_sqlite_url: str) -> AsyncIterator[Service]:
    """A server of each transport in turn, for calls that change nothing."""
    async with AsyncExitStack() as running:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(forkserver, "TRANSPORT", request.param)
            service = await running.enter_async_context(serve(shared_sqlite_url))
        yield service


def test_every_error_has_a_status() -> None:
    classes = {
        each
        for _, each in inspect.getmembers(errors, inspect.isclass)
        if issubclass(each, AuthzError) and each is not AuthzError
    }
    assert classes == set(STATUS_CODES)


def test_status_codes_are_numbered_as_grpc_numbers_them() -> None:
    names = {code.value[0]: code.name for code in grpc.StatusCode}
    for error, code in STATUS_CODES.items():
        assert code_name(error.__new__(error)) == names[code]


def test_the_reasons_of_the_contract_are_ours() -> None:
    names = {name.removeprefix("ERROR_REASON_") for name, _ in error_reason_pb2.ErrorReason.items()}
    assert names - {"UNSPECIFIED"} == {reason.value for reason in ErrorReason}


@pytest.mark.parametrize("reason", list(ErrorReason))
def test_a_reason_is_documented_with_its_status_and_an_example(reason: ErrorReason) -> None:
    match = re.search(rf"((?:  //.*\n)+)  ERROR_REASON_{reason.value} =", PROTO.read_text())
    assert match is not None
    comment = match[1].replace("  // ", "")
    assert comment.split(".")[0].split(",")[0] in {code.name for code in grpc.StatusCode}
    example = json.loads(comment[comment.index("{") :])
    assert example["reason"] == reason.value
    assert isinstance(example["metadata"], dict)


_MAX_STATUS_BYTES = 8000
"""Below 8 KiB, of which the other fields of the trailers take some."""
LONG_TEXTS = ("a" * 9000, "%" * 9000, "\n" * 9000, "é" * 9000, "日" * 9000)


@pytest.mark.parametrize("text", LONG_TEXTS, ids=lambda text: ascii(text[0]))
def test_the_status_of_an_error_that_quotes_a_long_text_fits(text: str) -> None:
    faults = tuple(PolicyFault("default.csv", line, 1, text[: 9000 // line]) for line in range(1, 200))
    for error in (
        InvalidArgumentError(ErrorReason.MALFORMED_FIELD, text, field=text, action=text),
        *(PolicyError(faults[at : at + count]) for at in (0, 20, 198) for count in (1, 180)),
    ):
        status = status_of(error)
        sent = quote(status.message, safe=GRPC_SENDS), base64.b64encode(status.SerializeToString())
        assert sum(map(len, sent)) <= _MAX_STATUS_BYTES, error.message[:80]
        assert status.message[:10] == error.message[:10]


@pytest.mark.parametrize("length", [1, 16, 64, 256])
def test_a_refusal_of_many_faults_ends_in_how_many_more_there_are(length: int) -> None:
    faults = tuple(PolicyFault("default.csv", line, 1, "x" * length) for line in range(1, 200))
    *lines, last = status_of(PolicyError(faults)).message.splitlines()
    assert last == f"… and {len(faults) - len(lines[1:])} more; `ValidatePolicy` lists the first 1,000"


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("text", LONG_TEXTS, ids=lambda text: ascii(text[0]))
async def test_an_error_that_quotes_a_long_text_arrives_as_what_it_is(
    refusing_service: Service, text: str
) -> None:
    files = with_rows(f"p, student, *, material, read, {text[:3000]}, allow")
    with pytest.raises(grpc.aio.AioRpcError, match=r"the policy has \d faults?:\ndefault.csv:") as caught:
        await refusing_service.policy.ApplyPolicy(ppb.ApplyPolicyRequest(files=messages(files)))
    assert reason_of(caught.value) == "POLICY_INVALID"


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("form", ["unary_unary", "unary_stream", "stream_unary", "stream_stream"])
@pytest.mark.parametrize("path", ["/authz.v1.AuthorizationService/Chekc", "/other.v1.Service/Call", "/x"])
async def test_a_method_that_the_server_does_not_have_is_an_error_as_any_other(
    refusing_service: Service, form: str, path: str
) -> None:
    # A message that grpc.aio still sends when the status comes would replace it.
    sent = [] if form.startswith("stream") else b"a"
    call = getattr(refusing_service.channel, form)(path)(sent, timeout=30)
    with pytest.raises(grpc.aio.AioRpcError, match="the server has no such method") as caught:
        await (call.read() if form.endswith("stream") else call)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert reason_of(caught.value) == "UNKNOWN_METHOD"


@in_process
async def test_a_fault_while_deciding_is_an_error_that_hides_its_cause(
    sqlite_service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(Checker, "check", broken)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await sqlite_service.authorization.Check(question())
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert reason_of(caught.value) == "INTERNAL"
    assert "secret" not in str(caught.value.details())
    with pytest.raises(grpc.aio.AioRpcError):
        await sqlite_service.authorization.BatchCheck(apb.BatchCheckRequest(items=[question()]))


async def test_calls_beyond_the_limit_are_shed_with_a_time_to_retry(sqlite_url: str) -> None:
    async with serve(sqlite_url, max_reads="1") as service:
        await written(service, COURSE, STUDENT, MATERIAL)
        calls = [service.directory.ReadCourses(dpb.ReadCoursesRequest()) for _ in range(40)]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        shed = [each for each in outcomes if isinstance(each, grpc.aio.AioRpcError)]
        assert shed
        assert {each.code() for each in shed} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
        assert {reason_of(each) for each in shed} == {"OVERLOADED"}
        answered = [each for each in outcomes if not isinstance(each, BaseException)]
        assert answered
        assert all(each.courses for each in answered)


def details_of(error: AuthzError) -> dict[str, Any]:
    """The details of the status of an error, by their type."""
    found = {}
    for each in status_of(error).details:
        kind = getattr(error_details_pb2, each.TypeName().removeprefix("google.rpc."))()
        each.Unpack(kind)
        found[type(kind).__name__] = kind
    return found


def test_only_an_error_that_may_be_tried_again_says_when() -> None:
    assert [*details_of(InvalidArgumentError(ErrorReason.MALFORMED_FIELD, "no"))] == ["ErrorInfo"]
    shed = errors.OverloadedError("more", retry_after_s=1.5)
    assert details_of(shed)["RetryInfo"].retry_delay.ToMilliseconds() == 1500


def test_the_faults_that_do_not_fit_are_counted() -> None:
    error = PolicyError(tuple(PolicyFault("default.csv", line, 7, "x" * 400) for line in range(1, 20)))
    told, violations = status_of(error).message, details_of(error)["BadRequest"].field_violations
    assert [each.field for each in violations] == [f"default.csv:{line}:7" for line in range(1, 5)]
    assert f"\n… and {19 - len(violations)} more; " in told
    assert "more;" not in status_of(PolicyError(error.faults[:4])).message
