"""A watch of the Python client: typed changes, and going on by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import islice
from typing import Any

import grpc
import pytest

from authz.client import CallError, Client, WatchedChange
from authz.domain.entities import Course, CourseKey, EntityKind
from authz.domain.ids import course_scope
from authz.domain.mutations import Mutation, Operation
from authz.engine import watch
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from authz.v1 import watch_pb2 as wpb
from tests.client.conftest import Connect
from tests.client.test_client import ALGEBRA, CAMPUS
from tests.service import in_process
from tests.serving import both_transports, over_grpc, served, serving


@pytest.fixture
def client(sqlite_url: str, connect: Connect) -> Iterator[Client]:
    """A client of a service of nobody else."""
    with served(sqlite_url, stop_grace_s="5") as address, connect(address) as client:
        yield client


@both_transports
def test_what_is_written_and_deleted_is_told_as_it_was(client: Client) -> None:
    after = client.write([Mutation(Operation.TOUCH, Course(id="first"))])
    client.write([Mutation(Operation.CREATE, entity) for entity in CAMPUS], reason="term start")
    client.write([Mutation(Operation.DELETE, CourseKey("alg"))])
    with closing(client.watch(after=after, scopes=[ALGEBRA])) as changes:
        written, deleted = islice(changes, 2)
    assert set(written.mutations) == {Mutation(Operation.CREATE, entity) for entity in CAMPUS}
    assert set(deleted.mutations) == {Mutation(Operation.DELETE, entity) for entity in CAMPUS}
    assert (written.reason, written.actor, written.is_last) == ("term start", "unauthenticated", True)
    with closing(client.watch(after=written.token, kinds=[EntityKind.SHARE])) as changes:
        (share,) = next(changes).mutations
    assert share.kind is EntityKind.SHARE


def test_what_cannot_be_helped_is_an_error(client: Client) -> None:
    with pytest.raises(CallError) as caught:
        next(client.watch(after="nonsense"))
    assert caught.value.reason == "MALFORMED_TOKEN"


def test_nobody_there_is_an_error(connect: Connect) -> None:
    with connect("127.0.0.1:1") as client, pytest.raises(CallError) as caught:
        next(client.watch())
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE


def insist(client: Client, course: Course) -> None:
    """Write once the service is reached: channels of one process share their waits after a failure."""
    while True:
        with suppress(CallError):
            client.write([Mutation(Operation.TOUCH, course)])
            return
        time.sleep(0.02)


@over_grpc
def test_a_watch_goes_on_when_the_service_comes_back(
    sqlite_url: str, free_port: int, connect: Connect
) -> None:
    seen: list[WatchedChange] = []
    started = threading.Event()
    address = f"127.0.0.1:{free_port}"

    def follow() -> None:
        with (
            connect(address) as client,
            closing(client.watch(on_checkpoint=lambda _: started.set())) as changes,
        ):
            seen.extend(islice(changes, 3))

    following = threading.Thread(target=follow, daemon=True)
    for number in range(3):
        with serving(sqlite_url, AUTHZ_ADDRESS=address), Client(address) as writer:
            if not number:
                following.start()
            assert started.wait(60)
            insist(writer, Course(id=f"c{number}"))
    with serving(sqlite_url, AUTHZ_ADDRESS=address):
        following.join(60)
    assert [[m.target for m in change.mutations] for change in seen] == [
        [Course(id=f"c{number}")] for number in range(3)
    ]


SILENCE = None
"""In place of a message: the stream says nothing, and does not end."""


class Torn:
    """A service whose streams break off: each says from where it was asked, and what comes next."""

    def __init__(self, *streams: tuple[wpb.WatchResponse | grpc.StatusCode | None, ...]) -> None:
        self.streams = list(streams)
        self.asked: list[str] = []
        self.over = threading.Event()

    def watch(self, request: wpb.WatchRequest, context: Any) -> Iterator[wpb.WatchResponse]:
        self.asked.append(request.after.token)
        for each in self.streams.pop(0) if self.streams else (grpc.StatusCode.DATA_LOSS,):
            if isinstance(each, wpb.WatchResponse):
                yield each
            elif each is SILENCE:
                self.over.wait(60)
            else:
                context.abort(each, "torn")


def checkpoint(token: str) -> wpb.WatchResponse:
    return wpb.WatchResponse(checkpoint=wpb.Checkpoint(read_up_to=pb.ConsistencyToken(token=token)))


def piece(token: str, *names: str, last: bool) -> wpb.WatchResponse:
    mutations = [dpb.Mutation(operation=dpb.OPERATION_TOUCH, course=pb.Course(id=name)) for name in names]
    change = wpb.WatchChange(mutations=mutations, written_at=pb.ConsistencyToken(token=token), last=last)
    return wpb.WatchResponse(change=change)


Serve = Callable[[Torn], Client]


@pytest.fixture
def serve(connect: Connect) -> Iterator[Serve]:
    """Makes a service of torn streams, and a client of it."""
    server = grpc.server(ThreadPoolExecutor(4))
    clients: list[Client] = []

    def begin(torn: Torn) -> Client:
        handler: Any = grpc.unary_stream_rpc_method_handler(
            torn.watch,
            request_deserializer=wpb.WatchRequest.FromString,
            response_serializer=lambda message: message.SerializeToString(),
        )
        generic = grpc.method_handlers_generic_handler("authz.v1.WatchService", {"Watch": handler})
        server.add_generic_rpc_handlers([generic])
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        clients.append(connect(f"127.0.0.1:{port}"))
        return clients[0]

    yield begin
    for client in clients:
        client.__exit__(None, None, None)
    server.stop(0).wait()


AWAY, SLOW, LOST = grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED, grpc.StatusCode.DATA_LOSS


def names_until_lost(client: Client) -> list[str]:
    names: list[str] = []
    with pytest.raises(CallError) as caught:
        for change in client.watch():
            names += [str(mutation.key) for mutation in change.mutations]
    assert caught.value.code is LOST
    return names


def test_a_torn_watch_is_asked_for_from_the_last_token_that_was_told_to_its_end(serve: Serve) -> None:
    torn = Torn(
        (checkpoint("t0"), piece("t1", "a", last=True), AWAY),
        (checkpoint("t1"), checkpoint("t5"), SLOW),
        (checkpoint("t5"), piece("t6", "b", last=True), piece("t7", "c", last=True), LOST),
    )
    assert names_until_lost(serve(torn)) == ["course:a", "course:b", "course:c"]
    assert torn.asked == ["", "t1", "t5"]


def test_pieces_that_were_given_are_not_given_again(serve: Serve) -> None:
    torn = Torn(
        (checkpoint("t0"), piece("t1", "a", "b", last=False), SLOW),
        (checkpoint("t0"), piece("t1", "a", last=False), piece("t1", "b", "c", last=False), AWAY),
        (checkpoint("t0"), AWAY),
        (checkpoint("t0"), piece("t1", "a", "b", "c", "d", last=True), piece("t2", "a", last=True), LOST),
    )
    assert names_until_lost(serve(torn)) == [f"course:{name}" for name in "abcda"]
    assert torn.asked == ["", "t0", "t0", "t0"]


def test_a_change_that_was_begun_and_is_no_more_is_an_error(serve: Serve) -> None:
    torn = Torn(
        (checkpoint("t0"), piece("t1", "a", "b", last=False), AWAY),
        (checkpoint("t0"), piece("other t1", "c", "d", "e", last=True), LOST),
    )
    changes = serve(torn).watch()
    assert [m.key for m in next(changes).mutations] == [CourseKey("a"), CourseKey("b")]
    with pytest.raises(CallError, match="history of a change") as caught:
        next(changes)
    assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.OUT_OF_RANGE, "TOKEN_EXPIRED")


def test_a_watch_gives_up_when_it_hears_nothing_for_too_long(serve: Serve) -> None:
    torn = Torn((checkpoint("t0"), AWAY), *[(AWAY,)] * 100)
    with pytest.raises(CallError) as caught:
        next(serve(torn).watch(resume_for_s=0.2))
    assert caught.value.code is AWAY


def set_max_silence(monkeypatch: pytest.MonkeyPatch, silence_s: float) -> None:
    for kind in ("sync", "aio"):
        monkeypatch.setattr(f"authz.client.{kind}.watch._MAX_SILENCE_S", silence_s)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Silence is noticed soon, and later than a message that is sent at once."""
    set_max_silence(monkeypatch, 1)


@pytest.mark.usefixtures("impatient")
def test_a_stream_that_falls_silent_is_asked_for_anew(serve: Serve) -> None:
    torn = Torn(
        (checkpoint("t0"), piece("t1", "a", last=True), SILENCE),
        (checkpoint("t1"), piece("t2", "b", last=True), LOST),
    )
    assert names_until_lost(serve(torn)) == ["course:a", "course:b"]
    assert torn.asked == ["", "t1"]
    torn.over.set()


def test_a_service_that_never_says_anything_is_an_error(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_max_silence(monkeypatch, 0.1)
    torn = Torn((SILENCE,))
    with pytest.raises(CallError, match="sent nothing for"):
        next(serve(torn).watch())
    torn.over.set()


@pytest.mark.usefixtures("impatient")
def test_who_reads_slowly_is_not_cut_off(serve: Serve) -> None:
    torn = Torn((checkpoint("t0"), piece("t1", "a", last=True), piece("t2", "b", last=True), LOST))
    changes = serve(torn).watch()
    next(changes)
    time.sleep(1.5)
    assert next(changes).token == "t2"
    changes.close()
    assert torn.asked == [""]


@in_process
def test_a_large_change_is_given_whole_in_pieces(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, connect: Connect
) -> None:
    monkeypatch.setattr(watch, "MUTATIONS_A_READ", 2)
    with served(sqlite_url, stop_grace_s="5") as address, connect(address) as client:
        token = client.write([Mutation(Operation.CREATE, Course(id="a"))])
        client.write([Mutation(Operation.CREATE, entity) for entity in CAMPUS])
        given: list[WatchedChange] = []
        with closing(client.watch(after=token, scopes=[course_scope("alg")])) as changes:
            for change in changes:
                given.append(change)
                if change.is_last:
                    break
    assert len(given) > 1
    assert {m.target for change in given for m in change.mutations} == set(CAMPUS)
    assert len({change.token for change in given}) == 1
