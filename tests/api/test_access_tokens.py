"""Access tokens: who shows one is its service, until it ends or is revoked, on every server."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from authz.client import CallError, Client, InvalidArgumentError
from authz.domain.entities import AccessToken, AccessTokenFilter
from authz.domain.ids import parse_subject
from authz.domain.instants import DAY_US, Instant
from authz.domain.kinds.access_token import digest_of, token_id, token_text
from authz.domain.mutations import Mutation, Operation
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from authz.v1 import watch_pb2 as wpb
from tests.callers import grant
from tests.databases import create_sqlite
from tests.issuer import Issuer, bearer
from tests.service import Service, reason_of, serve

ADMIN, SYNC = parse_subject("service:admin"), parse_subject("service:sync")
ISSUER = Issuer()
READ = dpb.ReadCoursesRequest()


def in_a_day() -> Instant:
    return time.time_ns() // 1000 + DAY_US


@asynccontextmanager
async def served(url: str, folder: Path) -> AsyncIterator[Service]:
    """A server that accepts tokens, and JWTs for those who create them."""
    now, jwts = time.time_ns() // 1000, ISSUER.settings(folder)
    async with serve(url, now=now, access_tokens="true", **jwts) as each:
        yield each


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def secured(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    folder = tmp_path_factory.mktemp("secured")
    url = create_sqlite(folder / "authz.db")
    grant(url, {"service:admin": "operator", "service:sync": "watcher"})
    async with served(url, folder) as service:
        yield service


def client_of(secured: Service, caller: str = "admin") -> Client:
    return Client(secured.address, token=ISSUER.jwt(caller))


async def create(secured: Service) -> str:
    """A token of the caller `sync`."""

    def call() -> str:
        with client_of(secured) as client:
            return client.create_access_token(SYNC, ends_at=in_a_day())

    return await asyncio.to_thread(call)


async def revoke(secured: Service, token: str) -> None:
    def call() -> None:
        with client_of(secured) as client:
            client.revoke_access_token(token_id(token) or "")

    await asyncio.to_thread(call)


async def read(secured: Service, token: str) -> grpc.aio.AioRpcError | None:
    """The error of a call with a token; None for an answer."""
    try:
        await secured.directory.ReadCourses(READ, metadata=bearer(token), timeout=20)
    except grpc.aio.AioRpcError as error:
        return error
    return None


async def refused(secured: Service, token: str) -> str:
    """The message with which a token is refused."""
    error = await read(secured, token)
    assert error is not None
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_INVALID")
    return str(error.details())


async def until(secured: Service, token: str, *, accepted: bool) -> None:
    """Wait until a server accepts a token, or refuses it."""
    async with asyncio.timeout(20):
        while (await read(secured, token) is None) is not accepted:  # noqa: ASYNC110  of another server
            await asyncio.sleep(0.02)


@pytest.mark.asyncio(loop_scope="module")
async def test_who_shows_a_token_has_the_rights_of_its_service_and_no_others(secured: Service) -> None:
    token = await create(secured)
    assert await read(secured, token) is None
    async with secured.logged() as lines:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await secured.directory.Write(
                dpb.WriteRequest(mutations=[dpb.Mutation(operation=dpb.OPERATION_DELETE)]),
                metadata=bearer(token),
            )
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert {line["caller"] for line in lines if line["event"] == "call"} == {"service:sync"}
    with (
        pytest.raises(CallError, match="`service:sync` may not call"),
        Client(secured.address, token=token) as client,
    ):
        await asyncio.to_thread(client.create_access_token, SYNC, ends_at=in_a_day())


@pytest.mark.asyncio(loop_scope="module")
async def test_a_token_that_is_revoked_or_has_ended_is_refused_and_so_is_every_other_text(
    secured: Service,
) -> None:
    kept, revoked = await create(secured), await create(secured)
    ended = token_text("e" * 12, bytes(32))
    record = AccessToken(id="e" * 12, subject=SYNC, digest=digest_of(ended), ends_at=secured.now)
    with client_of(secured) as client:
        await asyncio.to_thread(client.write, [Mutation(Operation.CREATE, record)])
    await revoke(secured, revoked)
    assert "was revoked" in await refused(secured, revoked)
    assert "has ended" in await refused(secured, ended)
    other = token_text(token_id(kept) or "", bytes(32))
    swapped = f"authz_{token_id(revoked)}_{kept.rpartition('_')[2]}"
    for text in (other, swapped, token_text("0" * 12, bytes(32))):
        assert "unknown" in await refused(secured, text)
    for text in (kept[:-1], kept + "0", kept.upper().replace("AUTHZ", "authz"), "authz_", "authz_x_y"):
        assert "not whole" in await refused(secured, text)
    assert await read(secured, kept) is None


@pytest.mark.asyncio(loop_scope="module")
async def test_two_credentials_are_none_in_whichever_order(secured: Service) -> None:
    token = bearer(await create(secured))
    for metadata in ((*token, *bearer("x")), (*bearer("x"), *token), (*token, *token)):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await secured.directory.ReadCourses(READ, metadata=metadata, timeout=20)
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.asyncio(loop_scope="module")
async def test_a_watch_ends_when_its_token_is_revoked(secured: Service) -> None:
    token = await create(secured)
    watch = secured.watch.Watch(wpb.WatchRequest(), metadata=bearer(token))
    await watch.read()
    await revoke(secured, token)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async with asyncio.timeout(20):
            while True:
                await watch.read()
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.asyncio(loop_scope="module")
async def test_a_list_shows_who_has_tokens_and_no_token(secured: Service) -> None:
    token = await create(secured)

    def use() -> list[AccessToken]:
        with client_of(secured) as client:
            assert not [*client.read(AccessTokenFilter(subject=ADMIN))]
            return [each.entity for each in client.read_access_tokens(subject=SYNC)]

    listed = await asyncio.to_thread(use)
    assert token_id(token) in [each.id for each in listed]
    assert token.rpartition("_")[2] not in repr(listed)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_token_is_of_a_service_has_a_digest_and_ends(secured: Service) -> None:
    good = AccessToken(id="t", subject=SYNC, digest="0" * 64, ends_at=in_a_day())
    maya = parse_subject("user:maya")

    def use() -> None:
        with client_of(secured) as client:
            with pytest.raises(CallError, match="`user:maya`, a person"):
                client.create_access_token(maya, ends_at=in_a_day())
            with pytest.raises(InvalidArgumentError, match="in the past by the clock of this machine"):
                client.create_access_token(SYNC, ends_at=secured.now)
            with pytest.raises(InvalidArgumentError, match="write it like `service:notebooks`"):
                client.create_access_token("notebooks", ends_at=in_a_day())
            for digest in ("", "0" * 63, "A" * 64, "plain text"):
                record = AccessToken(id="t", subject=SYNC, digest=digest, ends_at=in_a_day())
                with pytest.raises(CallError, match="no SHA-256"):
                    client.write([Mutation(Operation.CREATE, record)])
            client.write([Mutation(Operation.CREATE, good)])
            with pytest.raises(CallError, match="access token nothing"):
                client.revoke_access_token("nothing")

    await asyncio.to_thread(use)
    endless = pb.AccessToken(
        id="e", subject=pb.Subject(type=pb.SUBJECT_TYPE_SERVICE, id="sync"), digest="0" * 64
    )
    create_it = dpb.Mutation(operation=dpb.OPERATION_CREATE, access_token=endless)
    with pytest.raises(grpc.aio.AioRpcError, match="ends_at is missing"):
        await secured.directory.Write(
            dpb.WriteRequest(mutations=[create_it]), metadata=bearer(ISSUER.jwt("admin"))
        )


async def test_a_token_counts_and_is_revoked_on_every_server(postgresql_url: str, tmp_path: Path) -> None:
    grant(postgresql_url, {"service:admin": "operator", "service:sync": "watcher"})
    async with AsyncExitStack() as running:
        servers = [await running.enter_async_context(served(postgresql_url, tmp_path)) for _ in range(2)]
        token = await create(servers[0])
        for secured in servers:
            await until(secured, token, accepted=True)
        await revoke(servers[1], token)
        for secured in servers:
            await until(secured, token, accepted=False)
            assert "was revoked" in await refused(secured, token)


async def test_a_server_that_was_not_told_to_accept_tokens_refuses_them(
    sqlite_url: str, tmp_path: Path
) -> None:
    async with serve(sqlite_url, now=time.time_ns() // 1000, **ISSUER.settings(tmp_path)) as secured:
        assert "accepts no access tokens" in await refused(secured, token_text("0" * 12, bytes(32)))
    async with serve(sqlite_url, access_tokens="true") as secured:
        told = "does not begin with `authz_`, as access tokens do, and this server accepts no JWTs"
        for text in (ISSUER.jwt("sync"), token_text("0" * 12, bytes(32))[1:]):
            assert told in await refused(secured, text)
        assert await read(secured, "") is not None


def content_of(folder: Path) -> bytes:
    return b"".join(file.read_bytes() for file in folder.rglob("*") if file.is_file())


async def test_the_files_of_a_server_do_not_hold_a_token(sqlite_url: str, tmp_path: Path) -> None:
    grant(sqlite_url, {"service:admin": "operator", "service:sync": "watcher"})
    async with served(sqlite_url, tmp_path) as secured:
        token = await create(secured)
        assert await read(secured, token) is None
        content = await asyncio.to_thread(content_of, tmp_path)
        digest = (
            (
                await secured.directory.ReadAccessTokens(
                    dpb.ReadAccessTokensRequest(), metadata=bearer(ISSUER.jwt("admin"))
                )
            )
            .access_tokens[0]
            .digest
        )
    assert digest.encode() in content
    secret = token.rpartition("_")[2]
    assert secret.encode() not in content and bytes.fromhex(secret) not in content
