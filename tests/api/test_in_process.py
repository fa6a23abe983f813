"""Another face than gRPC makes a `Call`, and gets the same answers, errors and log lines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from google.rpc import status_pb2
from structlog.testing import capture_logs

from authz.access.permission import AllowAll
from authz.api.call import CallKind
from authz.api.endpoints import Endpoint
from authz.api.grpc.adapter import add_endpoints
from authz.api.pipeline import Pipeline
from authz.domain.errors import AuthzError, SlowConsumerError
from authz.domain.tokens import ConsistencyToken
from authz.runtime import api as api_module
from authz.wire.errors import status_of
from tests.api.in_process import ByNameAuthenticator, InProcessFace
from tests.api.test_api import COURSE, MATERIAL, STUDENT, written
from tests.service import Service, in_process, serve
from tests.store.directory import changes_of, open_with
from tests.tokens import made_up

HEADERS = {"x-request-id": "r-1"}
MAYA = {"type": "SUBJECT_TYPE_USER", "id": "maya"}
READ = {"subject": MAYA, "action": "read", "resource": {"type": "material", "id": "m-1"}}
NEVER = {"atLeastAsFresh": {"token": made_up(ConsistencyToken("0" * 32, 1))}}
OTHER_COURSE = {"operation": "OPERATION_TOUCH", "course": {"id": "b"}}
BAD_COURSE = {"operation": "OPERATION_TOUCH", "course": {"id": "not an id"}}
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("Check", READ),
    ("Check", READ | {"action": "update"}),
    ("Check", READ | {"action": "raed"}),
    ("Check", READ | {"requestId": "not an id"}),
    ("Check", READ | {"requestId": "of-the-field"}),
    ("Check", READ | {"consistency": {"fullyConsistent": True}}),
    ("Check", READ | {"consistency": NEVER}),
    ("BatchCheck", {"items": [READ, READ | {"action": "raed"}]}),
    ("BatchCheck", {}),
    ("ListActions", {"subject": MAYA, "resource": READ["resource"]}),
    ("Write", {"mutations": [OTHER_COURSE]}),
    ("Write", {"mutations": [OTHER_COURSE, BAD_COURSE], "requestId": "w-1"}),
    ("Import", {"mutations": [OTHER_COURSE, BAD_COURSE]}),
    ("ReadCourses", {"pageSize": 1}),
    ("ReadShares", {"consistency": NEVER}),
]


class Faces:
    """A server, and a second face over what its gRPC face serves."""

    def __init__(self, service: Service, face: InProcessFace, endpoints: tuple[Endpoint, ...]) -> None:
        self.service = service
        self.face = face
        self.endpoints = endpoints
        self._endpoints = {endpoint.method.name.rpartition("/")[2]: endpoint for endpoint in endpoints}

    async def over_grpc(self, method: str, body: dict[str, Any]) -> Any:
        """The same request through gRPC, with the answer or the status as JSON."""
        endpoint = self._endpoints[method]
        message: Any = json_format.ParseDict(body, endpoint.request_type())
        service = endpoint.method.name.split("/")[1]
        stub = self.service.authorization if "Authorization" in service else self.service.directory
        request = iter([message]) if endpoint.client_streams else message
        try:
            answer = await getattr(stub, method)(request, metadata=tuple(HEADERS.items()), timeout=60)
        except grpc.aio.AioRpcError as error:
            details: Any = dict(error.trailing_metadata() or ())["grpc-status-details-bin"]
            return json_format.MessageToDict(status_pb2.Status.FromString(details))
        return json_format.MessageToDict(answer)

    async def in_process(self, method: str, body: dict[str, Any]) -> Any:
        """The request through the second face, with the answer or the status as JSON."""
        try:
            return await self.face.ask(method, body, headers=HEADERS, timeout_s=60)
        except AuthzError as error:
            return json_format.MessageToDict(status_of(error))


@pytest.fixture
async def faces(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Faces]:
    """Both faces of one running server."""
    served: list[tuple[Pipeline, tuple[Endpoint, ...]]] = []

    def serving(server: grpc.aio.Server, pipeline: Pipeline, endpoints: tuple[Endpoint, ...]) -> None:
        served.append((pipeline, endpoints))
        add_endpoints(server, pipeline, endpoints)

    monkeypatch.setattr(api_module, "add_endpoints", serving)
    async with serve(sqlite_url) as service:
        await written(service, COURSE, STUDENT, MATERIAL)
        yield Faces(service, InProcessFace(*served[0]), served[0][1])


def comparable(value: Any) -> Any:
    """A value without what differs between two calls: ids that are made up, and how long a call took."""
    if isinstance(value, dict):
        made_up = ("decisionId", "decision_id", "elapsed_ms")
        return {key: comparable(each) for key, each in value.items() if key not in made_up}
    return [comparable(each) for each in value] if isinstance(value, list) else value


@in_process
@pytest.mark.parametrize(("method", "body"), CALLS)
async def test_both_faces_answer_and_log_the_same(faces: Faces, method: str, body: dict[str, Any]) -> None:
    await faces.in_process(method, body)  # the first write of a kind changes something, and no later one
    with capture_logs() as lines_of_grpc:
        over_grpc = await faces.over_grpc(method, body)
    with capture_logs() as lines:
        in_process = await faces.in_process(method, body)
    assert comparable(in_process) == comparable(over_grpc)
    assert comparable(lines) == comparable(lines_of_grpc)
    assert [line["event"] for line in lines].count("call") == 1


@in_process
async def test_a_watch_is_the_same_watch(faces: Faces) -> None:
    sent: list[Any] = []

    async def stop_at_the_second(answer: Any) -> None:
        sent.append(answer)
        if len(sent) == 2:
            raise SlowConsumerError("enough", resume_after="x")

    read = await faces.face.ask("ReadCourses", {})
    await faces.face.ask("Write", {"mutations": [OTHER_COURSE]})
    with pytest.raises(SlowConsumerError):
        await faces.face.ask("Watch", {"after": read["readAt"]}, send=stop_at_the_second)
    assert sent[0].checkpoint.read_up_to.token == read["readAt"]["token"]
    assert [mutation.course.id for mutation in sent[1].change.mutations] == ["b"]


@in_process
async def test_a_certificate_of_any_face_is_the_actor_of_a_write(faces: Faces, sqlite_url: str) -> None:
    by_certificate = Pipeline(
        authenticators=(ByNameAuthenticator(),),
        permissions=AllowAll(),
        concurrency_limits=dict.fromkeys(CallKind, 1),
    )
    face = InProcessFace(by_certificate, faces.endpoints)
    with capture_logs() as lines:
        await face.ask("Write", {"mutations": [OTHER_COURSE]}, certificate="roster-sync")
    assert [line["caller"] for line in lines if line["event"] == "call"] == ["service:roster-sync"]
    store = open_with(sqlite_url)
    assert changes_of(store, 1, 10)[-1].actor == "service:roster-sync"
    store.close()
