"""Certificates of clients: whose name is known is the actor of its writes; who shows none is not served."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from authz.client import Client
from authz.domain.entities import Course
from authz.domain.errors import InvalidArgumentError
from authz.domain.mutations import Mutation, Operation
from authz.runtime.server import Server
from authz.runtime.settings import load_settings
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from authz.v1 import directory_pb2_grpc
from tests.access.certificates import channel_credentials
from tests.callers import grant, revoke
from tests.forkserver import run
from tests.store.directory import changes_of, open_with

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make certificates")


def certify(folder: Path, name: str, *extensions: str) -> tuple[Path, Path]:
    """A self-made certificate for a common name, and its key."""
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    files = ["-days", "2", "-subj", f"/CN={name}", "-out", str(certificate), "-keyout", str(key)]
    subprocess.run([*new, *files, *extensions], check=True, capture_output=True)
    return certificate, key


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Certificates of the server, of a client that it knows, and of one that it does not."""
    made = tmp_path_factory.mktemp("certificates")
    certify(made, "localhost", "-addext", "subjectAltName=DNS:localhost")
    certify(made, "roster-sync", "-addext", "subjectAltName=URI:spiffe://qalam/roster-sync")
    certify(made, "stranger", "-addext", "subjectAltName=URI:spiffe://qalam/roster-sync")
    (made / "callers.toml").write_text('[uri]\n"spiffe://qalam/roster-sync" = "service:roster-sync"\n')
    return made


@pytest.fixture
async def address(folder: Path, sqlite_url: str) -> AsyncIterator[str]:
    """A server that asks for a certificate, and knows one caller, which may do everything."""
    grant(sqlite_url, {"service:roster-sync": "platform_admin"})
    settings = load_settings(
        {
            "address": "localhost:0",
            "database_url": sqlite_url,
            "tls_certificate_file": str(folder / "localhost.pem"),
            "tls_key_file": str(folder / "localhost.key"),
            "tls_client_ca_file": str(folder / "roster-sync.pem"),
            "callers_file": str(folder / "callers.toml"),
            "stop_grace_s": "0",
        },
        environ={},
    )
    async with Server(settings) as server:
        yield server.address


async def write(address: str, folder: Path, client: str | None) -> None:
    """One write, as the client of this name, or without a certificate."""
    async with grpc.aio.secure_channel(address, channel_credentials(folder, client)) as channel:
        stub: Any = directory_pb2_grpc.DirectoryServiceStub(channel)
        course = dpb.Mutation(operation=dpb.OPERATION_TOUCH, course=pb.Course(id="algebra"))
        await stub.Write(dpb.WriteRequest(mutations=[course]), timeout=20)


async def test_the_name_in_the_certificate_is_the_actor_in_the_change_log(
    address: str, folder: Path, sqlite_url: str
) -> None:
    await write(address, folder, "roster-sync")
    store = open_with(sqlite_url)
    change = changes_of(store, 1, 10)[-1]
    store.close()
    assert change.actor == "service:roster-sync"


@pytest.mark.parametrize("client", [None, "stranger"])
async def test_a_client_that_is_not_vouched_for_is_not_served(
    address: str, folder: Path, sqlite_url: str, client: str | None
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await write(address, folder, client)
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    store = open_with(sqlite_url)
    assert store.directory.head().revision == 2  # the first policy, and the role of the caller
    store.close()


async def test_a_caller_whose_role_is_taken_away_or_whose_name_is_struck_is_refused(
    address: str, folder: Path, sqlite_url: str
) -> None:
    # The last person and the last caller that may give roles could not be taken away.
    grant(sqlite_url, {"user:root": "platform_admin", "service:root": "platform_admin"})
    revoke(sqlite_url, "service:roster-sync", "platform_admin")
    await refused(address, folder, grpc.StatusCode.PERMISSION_DENIED)
    known = (folder / "callers.toml").read_text()
    (folder / "callers.toml").write_text("[uri]\n")
    try:
        await refused(address, folder, grpc.StatusCode.UNAUTHENTICATED)
    finally:
        (folder / "callers.toml").write_text(known)


async def refused(address: str, folder: Path, code: grpc.StatusCode) -> None:
    """Return once a write is refused with a code."""
    async with asyncio.timeout(20):
        while True:
            try:
                await write(address, folder, "roster-sync")
            except grpc.aio.AioRpcError as error:
                if error.code() is code:
                    return
            await asyncio.sleep(0.05)


async def test_the_client_and_the_command_line_show_their_certificate(address: str, folder: Path) -> None:
    ca, own, key = (str(folder / name) for name in ("localhost.pem", "roster-sync.pem", "roster-sync.key"))

    def ask() -> bool:
        with Client(address, tls_ca_file=ca, tls_certificate_file=own, tls_key_file=key) as client:
            client.write([Mutation(Operation.TOUCH, Course(id="algebra"))])
            return client.check("user:maya", "read", "course:algebra").allowed

    assert not await asyncio.to_thread(ask)
    files = ("--tls-ca-file", ca, "--tls-certificate-file", own, "--tls-key-file", key)
    for given, code, told in (
        (files, 1, "denied  NOT_A_MEMBER"),
        ((), 2, "if it has TLS, set"),
    ):
        command = ("check", "user:maya", "read", "course:algebra", "--address", address, *given)
        ended = await asyncio.to_thread(run, *command)
        assert (ended.returncode, told in ended.stdout + ended.stderr) == (code, True)
    with pytest.raises(InvalidArgumentError, match="go together"):
        Client(address, tls_ca_file=ca, tls_key_file=key)
