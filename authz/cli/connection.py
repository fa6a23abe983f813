"""How a command reaches a service: one that runs, or one of its own over a database."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from authz.client import Client
from authz.settings import Settings

Address = Annotated[
    str, typer.Option("--address", envvar="AUTHZ_ADDRESS", help="The service to ask, as host:port.")
]
Database = Annotated[
    str,
    typer.Option(
        "--database", help="Ask a service of our own over this database, such as sqlite:///authz.db."
    ),
]
DEFAULT_ADDRESS = "127.0.0.1:50051"


@contextmanager
def connect(address: str, database: str) -> Iterator[Client]:
    """A client of the service at `address`, or, given a database, of one that runs while this does."""
    if not database:
        with Client(address) as client:
            yield client
        return
    from authz.settings import load_settings

    # The policy and the rest come from the environment, so that the answers are those of `authz serve`.
    settings = load_settings(
        {
            "address": "127.0.0.1:0",
            "database_url": database,
            "log_level": "error",
            "tls_certificate_file": "",
            "tls_key_file": "",
            "tls_client_ca_file": "",
        }
    )
    with embedded(settings) as target, Client(target) as client:
        yield client


@contextmanager
def embedded(settings: Settings) -> Iterator[str]:
    """The real server, in a thread of this process, on a free port; yields its address."""
    from authz.logs import configure_logging
    from authz.server import Server

    configure_logging(settings.log_level)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="server", daemon=True)
    thread.start()

    async def start() -> Server:
        return await Server(settings).__aenter__()

    try:
        server = asyncio.run_coroutine_threadsafe(start(), loop).result()
        try:
            yield server.address
        finally:
            asyncio.run_coroutine_threadsafe(server.stop(grace_s=1), loop).result()
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
