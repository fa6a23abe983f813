"""The client shows a token with every kind of call, and never where others can listen."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from authz.client import CallError, Client
from authz.domain.entities import Course
from authz.domain.errors import InvalidArgumentError
from authz.domain.mutations import Mutation, Operation
from tests.callers import grant
from tests.forkserver import run
from tests.issuer import Issuer
from tests.service import Service, serve

ISSUER = Issuer()
COURSE = Mutation(Operation.TOUCH, Course(id="algebra"))


@pytest.fixture
async def secured(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Service]:
    """A server that knows one caller, which may do everything."""
    grant(sqlite_url, {"service:app": "platform_admin"})
    async with serve(sqlite_url, now=time.time_ns() // 1000, **ISSUER.settings(tmp_path)) as each:
        yield each


async def test_every_kind_of_call_shows_the_token(secured: Service, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(ISSUER.jwt("app") + "\n")

    def use(client: Client, new: str) -> None:
        with client:
            client.write([COURSE])
            assert client.import_mutations([COURSE]).unchanged == 1
            assert not client.check("user:maya", "read", "course:algebra")
            start = client.current_token()
            client.write([Mutation(Operation.TOUCH, Course(id=new))])
            assert next(iter(client.watch(after=start)))

    await asyncio.to_thread(use, Client(secured.address, token_file=str(file)), "poetry")
    await asyncio.to_thread(use, Client(secured.address, token=lambda: ISSUER.jwt("app")), "history")
    command = ("courses", "--address", secured.address, "--token-file", file)
    ended = await asyncio.to_thread(run, *command)
    assert (ended.returncode, "algebra" in ended.stdout) == (0, True)


async def test_a_file_that_is_renewed_counts_from_the_next_call(secured: Service, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(Issuer().jwt("app"))

    def use() -> None:
        with Client(secured.address, token_file=str(file)) as client:
            with pytest.raises(CallError, match="signature verification failed"):
                client.write([COURSE])
            file.write_text(ISSUER.jwt("app"))
            client.write([COURSE])

    await asyncio.to_thread(use)


@pytest.mark.parametrize("content", ["", "\n", "one\ntwo", "Bearer authz_x_y", "\u00e9"])
def test_a_file_that_holds_no_token_is_told_before_a_call(content: str, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(content)
    client = Client("127.0.0.1:1", token_file=str(file))
    with client, pytest.raises(InvalidArgumentError, match=r"^token_file is empty, or is more than a token"):
        client.check("user:maya", "read", "material:m-1")


def no_token() -> str:
    raise ConnectionError("no route to the issuer, with the secret s3cr3t")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            {"token_file": "/nowhere/token"},
            "token_file is `/nowhere/token`, which cannot be read: No such file",
        ),
        ({"token_file": "/"}, "token_file is `/`, which cannot be read: Is a directory"),
        ({"token": no_token}, "token is a function that raised ConnectionError"),
        ({"token": lambda: None}, "token is a NoneType; give text"),
    ],
)
def test_what_gives_no_token_is_told_before_a_call(arguments: dict[str, Any], told: str) -> None:
    with Client("127.0.0.1:1", **arguments) as client:
        for call in (
            lambda: client.check("user:maya", "read", "material:m-1"),
            lambda: client.import_mutations([COURSE]),
            lambda: next(client.watch()),
        ):
            with pytest.raises(InvalidArgumentError, match=told) as caught:
                call()
            assert "s3cr3t" not in str(caught.value)


LOCAL = (
    *("127.0.0.1:1", "[::1]:1", "localhost:1", "unix:/run/authz.sock"),
    *("dns:localhost:1", "dns:///localhost:1", "dns:///localhost", "dns:127.0.0.1:1", "dns:///[::1]"),
    *("ipv4:127.0.0.1:1,127.0.0.1:2", "ipv4:///127.0.0.1:1", "ipv6:[::1]:1,[::1]:2", "ipv6:///[::1]:1"),
)
REMOTE = (
    *("authz.internal:50051", "ipv4:127.0.0.1:1,10.0.0.8:1", "ipv6:[::1]:1,[::2]:1"),
    *(
        "dns:authz.internal:1",
        "dns:///authz.internal",
        "dns:///localhost.internal:1",
        "dns:///authz:localhost",
    ),
    *("dns://10.0.0.1/localhost:1", "dns:////localhost:1", "ipv4://10.0.0.1/127.0.0.1:1", "vsock:1:1"),
)


def test_a_token_goes_to_another_machine_with_tls_only() -> None:
    for target in REMOTE:
        with pytest.raises(InvalidArgumentError, match="sent unencrypted"):
            Client(target, token="authz_x_y")
    Client("authz.internal:50051", token="authz_x_y", allow_plaintext_token=True)
    for target in LOCAL:
        Client(target, token="authz_x_y")
    Client("dns:authz.internal")  # the port of HTTPS, for who says so
    with pytest.raises(InvalidArgumentError, match="given twice"):
        Client("127.0.0.1:1", token="x", token_file="y")
