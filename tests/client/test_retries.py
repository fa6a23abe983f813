"""What the client makes of a server that restarts: a change is made once, or the call fails."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import Any

import grpc
import pytest

from authz.cli.errors import message_of
from authz.client import CallError, Client
from authz.client.connection import Connection
from authz.domain.entities import Course, CourseFilter
from authz.domain.errors import AuthzError, ErrorReason, UnavailableError
from authz.domain.ids import course_scope
from authz.domain.mutations import Mutation, Operation
from authz.v1 import directory_pb2
from authz.wire.errors import status_of
from tests.client.conftest import Connect
from tests.runtime.test_mutual_tls import certify
from tests.serving import find_free_port, over_grpc, served
from tests.waiting import until

pytestmark = over_grpc

CREATES = [Mutation(Operation.CREATE, Course(id="alg"))]
ROOTS = str(Path(grpc.__file__).parent / "_cython/_credentials/roots.pem")
"""Certificates of authorities, which gRPC brings."""
STOPPING = UnavailableError(ErrorReason.SERVER_STOPPING, "the server is stopping; try again")
AWAY = UnavailableError(ErrorReason.STORE_UNAVAILABLE, "the database does not answer")


class Front:
    """Stands before a service. What `before` and `after` hold happens to the next calls: an error before the
    service has the call, or when it has answered. None is the loss of the connection."""

    def __init__(self, service: grpc.Channel) -> None:
        self._service = service
        self.before: list[AuthzError | None] = []
        self.hangs_at = 0
        """The number of the call that gets no answer until the client gives it up."""
        self.after: list[AuthzError | None] = []
        self.calls = 0
        self.answers: list[bytes] = []

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        """Every method, by its bytes."""
        method: Any = self._service.unary_unary(details.method)

        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            self.calls += 1
            if self.calls == self.hangs_at:
                given_up = Event()
                context.add_callback(given_up.set)
                given_up.wait(30)
            _fail(context, self.before)
            try:
                self.answers.append(method(request, timeout=30))
            except grpc.RpcError as failure:
                error: Any = failure
                context.set_trailing_metadata(error.trailing_metadata())
                context.abort(error.code(), error.details())
            _fail(context, self.after)
            return self.answers[-1]

        return grpc.unary_unary_rpc_method_handler(answer)


def _fail(context: grpc.ServicerContext, errors: list[AuthzError | None]) -> None:
    if not errors:
        return
    error = errors.pop(0)
    if error is not None:
        details = status_of(error).SerializeToString()
        context.set_trailing_metadata((("grpc-status-details-bin", details),))
    context.abort(grpc.StatusCode.UNAVAILABLE, str(error) if error else "Socket closed")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client retries soon."""
    for kind in ("sync", "aio"):
        monkeypatch.setattr(f"authz.client.{kind}.calls._INITIAL_BACKOFF_S", 0.01)


@pytest.fixture
def front(sqlite_url: str, connect: Connect) -> Iterator[tuple[Front, Client]]:
    """A service that can fail, and a client of it."""
    with served(sqlite_url) as behind, grpc.insecure_channel(behind) as channel:
        found = Front(channel)
        with fronting(found) as address, connect(address) as client:
            yield found, client


@contextmanager
def fronting(front: Front) -> Iterator[str]:
    """The address at which it listens."""
    server = grpc.server(ThreadPoolExecutor(2), handlers=[front])  # type: ignore[list-item]  # as gRPC calls it
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield address
    server.stop(0).wait()


@pytest.mark.parametrize("key", ["", "import-7"])
@pytest.mark.parametrize(
    ("before", "after"),
    [([STOPPING], []), ([None, None], []), ([AWAY], []), ([], [None]), ([STOPPING, None], [None, AWAY])],
    ids=["refused at the door", "lost before it is done", "database away", "lost after it is done", "all"],
)
def test_a_write_during_a_restart_is_done_once(
    front: tuple[Front, Client], key: str, before: list[AuthzError | None], after: list[AuthzError | None]
) -> None:
    server, client = front
    server.before, server.after = [*before], [*after]
    token = client.write(CREATES, idempotency_key=key)
    assert server.calls == len(before) + len(after) + 1
    # A second creation would have failed, and a second write would have another token.
    given = {directory_pb2.WriteResponse.FromString(each).written_at.token for each in server.answers}
    assert given == {token} == {client.current_token()}
    (found,) = client.read(CourseFilter(ids=("alg",)))
    assert found.entity.id == "alg"


def test_two_writes_that_are_alike_are_two(front: tuple[Front, Client]) -> None:
    server, client = front
    client.write(CREATES)
    with pytest.raises(CallError) as failure:
        client.write(CREATES)
    assert failure.value.reason == "ENTITY_EXISTS"
    assert server.calls == 2


CHANGES: dict[str, Callable[[Client], Any]] = {
    "a removal of a member": lambda client: client.remove_member("user:maya", course_scope("alg")),
    "a hold": lambda client: client.privacy.hold("user:maya", reason="a court asks"),
    "a draft": lambda client: client.policies.drafts.create("spring"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_without_a_key_is_made_again_only_if_nothing_was_done(
    front: tuple[Front, Client], change: Callable[[Client], Any]
) -> None:
    server, client = front
    client.write(CREATES)
    server.calls, server.before = 0, [STOPPING, STOPPING]
    change(client)
    assert server.calls == 3

    for lost in (None, AWAY):
        server.calls, server.before = 0, [lost]
        with pytest.raises(CallError) as failure:
            change(client)
        assert failure.value.code is grpc.StatusCode.UNAVAILABLE
        assert server.calls == 1


def test_a_server_that_stays_away_is_an_error_that_says_so(front: tuple[Front, Client]) -> None:
    server, client = front
    server.before = [AWAY] * 1000
    with pytest.raises(CallError, match="the database does not answer") as failure:
        client.with_options(timeout_s=1).write(CREATES)
    assert (failure.value.code, failure.value.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
    assert server.calls > 1


def test_a_write_that_times_out_says_why_it_was_refused_before(
    front: tuple[Front, Client],
) -> None:
    server, client = front
    server.before, server.hangs_at = [AWAY], 2
    with pytest.raises(CallError) as failure:
        client.with_options(timeout_s=1).write(CREATES)
    assert failure.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert isinstance(failure.value.__cause__, CallError)
    assert message_of(failure.value).endswith("; before that: the database does not answer")


@pytest.mark.parametrize("change", [lambda client: client.write(CREATES), *CHANGES.values()])
def test_a_change_waits_for_a_server_that_is_not_there_yet(
    sqlite_url: str, connect: Connect, change: Callable[[Client], Any]
) -> None:
    address = f"127.0.0.1:{find_free_port()}"
    with connect(address, timeout_s=60) as client, ThreadPoolExecutor(1) as pool:
        with pytest.raises(CallError, match="all backends failing") as failure:
            change(client.with_options(timeout_s=1))
        assert failure.value.is_unsent
        changed = pool.submit(change, client)
        with served(sqlite_url, address=address):
            assert changed.result()


def test_a_change_that_may_take_long_waits_for_a_server_no_longer_than_others(connect: Connect) -> None:
    attempts = []

    def token() -> str:
        attempts.append(1)
        assert len(attempts) < 10
        return "t"

    with connect("127.0.0.1:1", token=token, timeout_s=0.3) as client:
        with pytest.raises(CallError) as failure:
            client.policies.roll_back(1)
        assert failure.value.is_unsent


def test_a_change_is_made_again_while_the_name_of_the_server_is_not_found(connect: Connect) -> None:
    attempts = []

    def token() -> str:
        attempts.append(1)
        return "t"

    with connect("nobody.invalid:1", token=token, allow_plaintext_token=True, timeout_s=1) as client:
        with pytest.raises(CallError, match=r"nobody\.invalid"):
            client.remove_member("user:maya", course_scope("alg"))
        assert len(attempts) > 1


@pytest.mark.parametrize("secured", [False, True], ids=["plain", "TLS"])
def test_a_connection_that_a_stopping_server_closes_is_made_again(
    sqlite_url: str, tmp_path: Path, connect: Connect, *, secured: bool
) -> None:
    files = certify(tmp_path, "localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    certificate, key = map(str, files)
    tls = {"tls_certificate_file": certificate, "tls_key_file": key} if secured else {}
    address, options = f"127.0.0.1:{find_free_port()}", {"tls_ca_file": certificate} if secured else {}
    with connect(address, timeout_s=60, **options) as client, ThreadPoolExecutor(1) as pool:
        with socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))) as stopping:
            token = pool.submit(client.write, CREATES)
            with stopping.accept()[0] as connection:
                connection.recv(65_536)  # or the client would be told that its connection was reset
        with served(sqlite_url, address=address, **tls):
            assert token.result()


def test_a_connection_that_fails_for_its_tls_settings_is_not_made_again(
    front: tuple[Front, Client], connect: Connect
) -> None:
    with fronting(front[0]) as address, connect(address, tls_ca_file=ROOTS, timeout_s=600) as client:
        with pytest.raises(CallError, match="leave `tls_ca_file`") as failure:
            client.write(CREATES)
        assert failure.value.is_misconfigured


@pytest.mark.parametrize("outage_s", [0.3, 0.6, 0.9, 1.2, 1.5])
def test_the_first_check_after_an_outage_is_answered(
    sqlite_url: str, connect: Connect, outage_s: float
) -> None:
    address = f"127.0.0.1:{find_free_port()}"
    with connect(address) as client:
        for restarted in (False, True):
            if restarted:
                time.sleep(outage_s)
            with served(sqlite_url, address=address):
                assert not client.check("user:maya", "read", "course:alg").allowed


def test_a_client_goes_on_connecting_while_no_server_answers() -> None:
    """By gRPC's default the sixth attempt comes after 16 s, and in a long outage one every two minutes."""
    attempts: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        connection = Connection(target=f"127.0.0.1:{listener.getsockname()[1]}", use_proxy=False)
        with grpc.insecure_channel(connection.target, options=connection.options()) as channel:
            ask: Any = channel.unary_unary("/a/b")

            def has_tried_six_times() -> bool:
                with pytest.raises(grpc.RpcError):
                    ask(b"", timeout=0.2)
                with suppress(BlockingIOError):
                    connected, _ = listener.accept()
                    connected.close()
                    attempts.append(connected)
                return len(attempts) == 6

            until(has_tried_six_times, timeout_s=11)
