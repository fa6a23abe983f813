"""A call ends with its client, and with the scope of its task."""

from __future__ import annotations

import asyncio
import ctypes
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import pytest

from authz.client import AsyncClient, CallError, Client
from authz.domain.entities import Course, CourseState
from authz.domain.mutations import Mutation, Operation
from tests.serving import served

NOBODY = "127.0.0.1:1"
COURSE = Course(id="a", state=CourseState.ACTIVE)


def test_a_closed_client_says_so() -> None:
    client = Client(NOBODY)
    client.close()
    client.close()
    for call in (
        lambda: client.check("user:maya", "read", "notebook:n"),
        lambda: client.import_mutations([]),
        lambda: next(client.watch()),
        lambda: next(client.privacy.export("user:maya")),
    ):
        with pytest.raises(CallError, match="the client is closed"):
            call()


async def test_a_closed_asynchronous_client_says_so() -> None:
    client = AsyncClient(NOBODY)
    await client.close()
    with pytest.raises(CallError, match="the client is closed"):
        await client.check("user:maya", "read", "notebook:n")
    with pytest.raises(CallError, match="the client is closed"):
        await client.import_mutations([])
    with pytest.raises(CallError, match="the client is closed"):
        await anext(client.watch())


@pytest.fixture
def mute() -> Iterator[str]:
    """The address of a server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


async def first(items: AsyncIterator[object]) -> object:
    return await anext(items)


def calls_of(client: AsyncClient) -> list[Coroutine[Any, Any, Any]]:
    """One call of each kind."""
    return [
        client.check("user:maya", "read", "notebook:n"),
        client.write([Mutation(Operation.TOUCH, COURSE)]),
        client.import_mutations([]),
        first(client.list_resources("user:maya", "read")),
        first(client.watch()),
        first(client.privacy.export("user:maya")),
    ]


@pytest.mark.parametrize("hedge_after_s", [0.0, 0.001])
async def test_a_call_says_that_its_client_was_closed_meanwhile(mute: str, hedge_after_s: float) -> None:
    client = AsyncClient(mute, timeout_s=60.0, hedge_after_s=hedge_after_s)
    calls = [asyncio.create_task(each) for each in calls_of(client)]
    cancelled = asyncio.create_task(client.check("user:maya", "read", "notebook:n"))
    await asyncio.sleep(0.05)  # under way, whether or not they are sent
    cancelled.cancel()
    await client.close()
    for call in calls:
        with pytest.raises(CallError, match="the client is closed"):
            await call
    with pytest.raises(asyncio.CancelledError):
        await cancelled


@pytest.mark.parametrize("hedge_after_s", [0.0, 0.001])
def test_a_blocking_call_says_that_its_client_was_closed_meanwhile(mute: str, hedge_after_s: float) -> None:
    client = Client(mute, timeout_s=60.0, hedge_after_s=hedge_after_s)
    asked: list[Callable[[], object]] = [
        lambda: client.check("user:maya", "read", "notebook:n"),
        lambda: client.import_mutations([]),
        lambda: next(client.list_resources("user:maya", "read")),
        lambda: next(client.watch()),
        lambda: next(client.privacy.export("user:maya")),
    ]
    with ThreadPoolExecutor(len(asked)) as pool:
        calls = [pool.submit(each) for each in asked]
        time.sleep(0.05)  # under way, whether or not they are sent
        client.close()
        for call in calls:
            with pytest.raises(CallError, match="the client is closed"):
                call.result()


def test_a_watch_that_has_had_changes_says_that_its_client_was_closed(sqlite_url: str) -> None:
    with served(sqlite_url) as address, ThreadPoolExecutor(1) as pool:
        client = Client(address)
        token = client.current_token()
        client.write([Mutation(Operation.TOUCH, COURSE)])
        changes = client.watch(after=token)
        next(changes)
        waits = pool.submit(next, changes)
        time.sleep(0.05)  # waits by now, usually; the outcome is the same if it does not yet
        client.close()
        with pytest.raises(CallError, match="the client is closed"):
            waits.result()


@pytest.mark.parametrize("hedge_after_s", [0.0, 0.001])
async def test_a_call_ends_with_the_scope_that_it_is_in(mute: str, hedge_after_s: float) -> None:
    """As with the timeouts of FastAPI and Starlette, which are of anyio."""
    async with AsyncClient(mute, timeout_s=60.0, hedge_after_s=hedge_after_s) as client:
        for call in calls_of(client):
            with anyio.move_on_after(0.02) as scope:
                await call
            assert scope.cancelled_caught


class _Allocated(ctypes.Structure):
    """`struct mallinfo2` of glibc."""

    _fields_ = [(f"field_{at}", ctypes.c_size_t) for at in range(10)]


def allocated_bytes() -> int:
    """What the libraries in C of this process have allocated and not freed."""
    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = _Allocated
    return int(mallinfo().field_7)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="only glibc counts its allocations")
@pytest.mark.parametrize("hedge_after_s", [0.0, 60.0])
async def test_a_cancelled_call_leaves_no_memory_behind(mute: str, hedge_after_s: float) -> None:
    """gRPC alone keeps 1 KB of each: https://github.com/grpc/grpc/issues/43360."""

    async def cancel(times: int) -> None:
        for _ in range(times):
            call = asyncio.create_task(client.check("user:maya", "read", "notebook:n"))
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

    grown = []
    async with AsyncClient(mute, timeout_s=60.0, hedge_after_s=hedge_after_s) as client:
        await cancel(200)
        for _ in range(3):
            before = allocated_bytes()
            await cancel(1_000)
            grown.append(allocated_bytes() - before)
    assert min(grown) < 300_000  # a buffer that is allocated meanwhile comes once, and a leak each time
