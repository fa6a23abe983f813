"""Print how soon a new version of the policy decides in every worker of two servers."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc

from authz.client import Client, check_request
from authz.domain.drafts import Authorship
from authz.domain.entities import PolicyActivationFilter
from authz.domain.files import files_text
from authz.domain.ports import Page
from authz.engine.publish import publication
from authz.runtime.compose import system_clock
from authz.store import open_store
from authz.v1 import authorization_pb2_grpc
from tests.bench.measure import show
from tests.bench.serving import CONNECTIONS, running
from tests.forkserver import AUTHZ
from tests.policies import CLOSED, SHIPPED
from tests.runtime.test_server import campus_of

ACTIVATIONS = 100


async def effect_ms(addresses: Sequence[str], publish: Callable[[int], object]) -> list[float]:
    """For each activation: from its commit until every connection is answered by the new version."""
    question = check_request("user:maya", "read", "material:m1")
    async with AsyncExitStack() as stack:
        channels = [
            await stack.enter_async_context(
                grpc.aio.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
            )
            for address in addresses
            for _ in range(CONNECTIONS)
        ]
        stubs: list[Any] = [authorization_pb2_grpc.AuthorizationServiceStub(channel) for channel in channels]

        async def until(stub: Any, version: str) -> None:
            while (await stub.Check(question)).policy_version != version:
                pass

        took_ms = []
        for number in range(2, 2 + ACTIVATIONS):
            await asyncio.to_thread(publish, number)
            begun = time.monotonic()
            await asyncio.gather(*(until(stub, str(number)) for stub in stubs))
            took_ms.append((time.monotonic() - begun) * 1e3)
        return sorted(took_ms)


def bench_activation(url: str) -> None:
    """Activations that another process commits. Every version differs, so that each is compiled."""
    store = open_store(url, vocabularies=lambda *_: None, clock=system_clock)  # type: ignore[arg-type]  # never asked
    activated_at = 1

    def publish(number: int) -> None:
        nonlocal activated_at
        files = files_text((CLOSED if number % 2 else SHIPPED) | {"notes.txt": str(number)})
        request = publication(number, files, Authorship(), system_clock(), activated_at)
        activated_at = store.directory.write(request).revision

    with (
        running([str(AUTHZ), "serve", "--workers", "2"], AUTHZ_DATABASE_URL=url) as (_, one, _),
        running([str(AUTHZ), "serve"], AUTHZ_DATABASE_URL=url) as (_, other, _),
    ):
        (active,) = store.directory.read(PolicyActivationFilter(), Page(1)).items
        activated_at = active.revision
        with Client(one) as client:
            client.write(campus_of(1))
        took_ms = asyncio.run(effect_ms((one, other), publish))
    store.close()
    show(
        "from the activation of a policy to its effect in every worker, median",
        f"{took_ms[ACTIVATIONS // 2]:.1f} ms",
    )
    show("the same, 99th percentile", f"{took_ms[ACTIVATIONS * 99 // 100]:.1f} ms", "goal 50 ms")


def main() -> None:
    """Over one SQLite database."""
    with tempfile.TemporaryDirectory(prefix="authz-bench-") as folder:
        bench_activation(f"sqlite:///{Path(folder) / 'bench.db'}")


if __name__ == "__main__":
    main()
