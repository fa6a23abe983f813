"""Random callers with random roles and credentials make random calls: none finds a way around its rights."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import grpc
import msgspec
import pytest
import pytest_asyncio
from google.protobuf import json_format
from structlog.testing import capture_logs

from authz.api.endpoints import Endpoint
from authz.api.grpc.adapter import add_endpoints
from authz.api.pipeline import Pipeline
from authz.client.access_tokens import make_access_token
from authz.domain.entities import AccessToken
from authz.domain.errors import AuthzError, ErrorReason, InvalidArgumentError
from authz.domain.ids import parse_subject
from authz.domain.kinds.access_token import token_text
from authz.domain.mutations import Mutation, Operation
from authz.runtime import api as api_module
from authz.v1 import directory_pb2 as dpb
from authz.wire.entities import mutation_message
from authz.wire.errors import status_of
from tests.api.in_process import Request
from tests.api.test_permissions import (
    COURSE_EXISTS,
    EVERY_PERMISSION,
    GRANTED,
    METHODS,
    WRITES,
    requests_of,
    touch,
)
from tests.callers import grant
from tests.databases import create_sqlite
from tests.issuer import Issuer, bearer
from tests.properties import LONG
from tests.service import Service, in_process, info_of, serve

CALLS = 100_000 if LONG else 1_200
OVER_GRPC = 20
"""Of how many calls one goes over a real channel."""
CHANGES = 50
"""After how many calls the roles of a caller change."""
CALLERS = [f"caller-{number}" for number in range(12)]
ROLES = [*GRANTED, "platform_admin"]
ISSUER, STRANGER = Issuer(), Issuer()
MAYA = "user:maya"
Outcome = tuple[str, dict[str, str]]
REFUSED = ("UNAUTHENTICATED", "PERMISSION_DENIED")


class SecuredServer:
    """A running server, its pipeline, and what each caller holds."""

    def __init__(self, service: Service, pipeline: Pipeline, endpoints: tuple[Endpoint, ...]) -> None:
        self.service, self.pipeline = service, pipeline
        self.endpoints = {each.method.name.rpartition("/")[2]: each for each in endpoints}
        self.roles: dict[str, set[str]] = {caller: set() for caller in CALLERS}
        self.credentials: dict[str, list[str]] = {}
        self.bad: list[str] = []

    def permissions(self, caller: str) -> set[str]:
        """The oracle: all that the roles of a caller are meant to permit."""
        held: set[str] = set()
        for role in self.roles[caller]:
            held |= set(EVERY_PERMISSION if role == "platform_admin" else GRANTED[role])
        return held

    async def admin(self, *mutations: dpb.Mutation) -> None:
        """Write as a caller that may."""
        request = dpb.WriteRequest(mutations=mutations)
        await self.service.directory.Write(request, metadata=bearer(ISSUER.jwt("admin")))

    async def change_roles(self, draw: random.Random) -> None:
        """Give a caller a role, or take one."""
        caller, role = draw.choice(CALLERS), draw.choice(ROLES)
        membership = {
            "subject": {"type": "SUBJECT_TYPE_SERVICE", "id": caller},
            "scope": {"platform": {}},
            "role": role,
        }
        taken = role in self.roles[caller]
        change = {"operation": "OPERATION_DELETE" if taken else "OPERATION_TOUCH", "membership": membership}
        await self.admin(json_format.ParseDict(change, dpb.Mutation()))
        self.roles[caller] ^= {role}

    async def head(self) -> str:
        """The state of the database."""
        read = await self.service.directory.ReadCourses(
            dpb.ReadCoursesRequest(page_size=1), metadata=bearer(ISSUER.jwt("admin"))
        )
        return str(read.read_at.token)

    async def in_process(self, name: str, request: Any, headers: dict[str, str]) -> Outcome:
        """The code with which a call ends, and the metadata of its error."""
        endpoint, transport = self.endpoints[name], Request(headers)
        run = partial(endpoint.run, send=_stop) if endpoint.server_streams else endpoint.run
        sent = _each(request) if endpoint.client_streams else request
        try:
            call = endpoint.call(request, transport, time.monotonic() + 20)
            await self.pipeline.serve(call, run, sent)
        except AuthzError as error:
            code: int = status_of(error).code
            return next(each.name for each in grpc.StatusCode if each.value[0] == code), dict(error.metadata)
        finally:
            transport.send()
        return "OK", {}

    async def over_grpc(self, name: str, request: Any, headers: dict[str, str]) -> Outcome:
        """Likewise, over a real channel."""
        service = METHODS[name].containing_service.name
        stub = {
            "AuditService": self.service.audit,
            "AuthorizationService": self.service.authorization,
            "DirectoryService": self.service.directory,
            "PolicyService": self.service.policy,
            "PrivacyService": self.service.privacy,
        }.get(service, self.service.watch)
        call = getattr(stub, name)(request, metadata=tuple(headers.items()), timeout=20)
        try:
            if METHODS[name].server_streaming:
                await call.read()
                call.cancel()
            else:
                await call
        except grpc.aio.AioRpcError as error:
            return error.code().name, dict(info_of(error).metadata)
        return "OK", {}


async def _stop(_: Any) -> None:
    raise InvalidArgumentError(ErrorReason.MALFORMED_FIELD, "enough")


async def _each(messages: Any) -> AsyncIterator[Any]:
    for message in messages:
        yield message


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def secured(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SecuredServer]:
    folder, served = tmp_path_factory.mktemp("secured"), []
    url = create_sqlite(folder / "authz.db")
    grant(url, {"service:admin": "platform_admin"})

    def serving(server: Any, pipeline: Pipeline, endpoints: tuple[Endpoint, ...]) -> None:
        served.append((pipeline, endpoints))
        add_endpoints(server, pipeline, endpoints)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api_module, "add_endpoints", serving)
        now = time.time_ns() // 1000
        async with serve(url, now=now, access_tokens="true", **ISSUER.settings(folder)) as service:
            secured = SecuredServer(service, *served[0])
            await _make_credentials(secured, now)
            yield secured


async def _make_credentials(secured: SecuredServer, now: int) -> None:
    made: list[AccessToken] = []
    for caller in CALLERS:
        token, record = make_access_token(parse_subject(f"service:{caller}"), ends_at=now + 10**12)
        secured.credentials[caller] = [token, ISSUER.jwt(caller)]
        made.append(record)
    ended, record = make_access_token(parse_subject("service:admin"), ends_at=now + 10**12)
    record = msgspec.structs.replace(record, ends_at=now - 1)
    await secured.admin(*(mutation_message(Mutation(Operation.CREATE, each)) for each in (*made, record)))
    unknown, _ = make_access_token(parse_subject("service:admin"), ends_at=now + 10**12)
    forged = token_text(made[0].id, bytes(32))
    expired = ISSUER.jwt("admin", exp=int(time.time()) - 60)
    secured.bad = ["", "x", ended, unknown, forged, expired, STRANGER.jwt("admin"), ISSUER.jwt("user:maya")]


def drawn_call(draw: random.Random) -> tuple[str, set[str], Any]:
    """The name of a call, what it needs of a caller, and its request."""
    name = draw.choice([*METHODS, "Write", "Import", "Check", "BatchCheck"])
    if name in ("Write", "Import"):
        parts = draw.sample(WRITES, draw.randint(1, 3))
        mutations = [touch(**record) for _, record in parts]
        needed = {permission for permission, _ in parts}
        if name == "Import":
            return name, needed, [dpb.ImportRequest(mutations=[each]) for each in mutations]
        preconditions = [COURSE_EXISTS] * draw.randint(0, 1)
        needed |= {"write_courses"} if preconditions else set()
        return name, needed, dpb.WriteRequest(mutations=mutations, preconditions=preconditions)
    permission, request = draw.choice(requests_of(name))
    return name, {permission}, request


@in_process
@pytest.mark.asyncio(loop_scope="module")
async def test_a_call_is_refused_exactly_without_a_credential_or_a_right_and_each_refusal_is_logged(
    secured: SecuredServer,
) -> None:
    draw, refused = random.Random(None if LONG else 1), 0
    counts = dict.fromkeys(("OK", "OTHER", *REFUSED), 0)
    for number in range(CALLS):
        if number % CHANGES == 0:
            await secured.change_roles(draw)
        name, needed, request = drawn_call(draw)
        caller, is_bad = draw.choice(CALLERS), draw.random() < 0.15
        credential = draw.choice(secured.bad if is_bad else secured.credentials[caller])
        headers = {"authorization": f"Bearer {credential}"} if credential else {}
        if draw.random() < 0.2:
            headers["authz-acting-for"] = MAYA
            if not secured.endpoints[name].method.is_decision:
                needed = needed | {"act_for"}
        held = secured.permissions(caller)
        expected = REFUSED[0] if is_bad else "" if needed <= held else REFUSED[1]
        before = await secured.head() if expected and number % 10 == 0 else ""
        make = secured.over_grpc if number % OVER_GRPC == 0 else secured.in_process
        with capture_logs() as lines:
            sent = _each(request) if make == secured.over_grpc and name == "Import" else request
            code, metadata = await make(name, sent, headers)
        is_of_caller = metadata.get("type") == "api"  # or else of the person that it acts for
        told = f"call {number}: {name} by {caller} with {secured.roles[caller]} needs {needed}"
        lines = [line for line in lines if line["event"] == "caller refused"]
        if expected:
            assert code == expected, told
            assert len(lines) == 1 and lines[0]["method"].endswith(f"/{name}"), told
            assert not before or await secured.head() == before or name == "Import", told
            if not is_bad:
                assert lines[0]["caller"].split(" ")[0] == f"service:{caller}"
                assert is_of_caller and metadata["permission"] in {"write_*", *needed - held}, told
        else:
            assert code != "UNAUTHENTICATED" and not is_of_caller, told
        refused += bool(expected)
        counts[code if code in counts else "OTHER"] += 1
    # None of the outcomes is so rare that the test could miss it.
    assert min(counts["OK"], counts["UNAUTHENTICATED"], counts["PERMISSION_DENIED"]) > CALLS // 20, counts
