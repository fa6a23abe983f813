"""`authz serve`: run the service until SIGTERM."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from authz.cli.server import run_server, setting_options
from authz.runtime.settings import Settings

_IN_MEMORY = Path("/dev/shm")  # noqa: S108  only the folder in which a new one is made


@setting_options(memory=True)
def serve(**given: str | bool | None) -> None:
    """Run the server. A flag overrides its AUTHZ_ variable, which overrides the default.

    SIGTERM drains calls in flight. With --no-follow, `authz follow` must run on
    this machine, and several servers may share one port.
    """
    from authz.runtime.serve import serve as serve_alone
    from authz.runtime.supervise import supervise

    async def main(settings: Settings) -> None:
        await (serve_alone(settings) if settings.workers == 1 else supervise(settings))

    if not given.pop("memory"):
        run_server(main, given)
        return
    if given["database_url"] is not None:
        raise typer.BadParameter("has a database of its own; leave --database-url out", param_hint="--memory")
    with _forgotten() as database:
        run_server(main, given | database)


@contextmanager
def _forgotten() -> Iterator[dict[str, str]]:
    """Settings of a database, and of its replica, that are deleted when the block ends."""
    folder = _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="authz-memory-", dir=folder) as own:
        yield {"database_url": f"sqlite:///{own}/authz.db", "replica_dir": f"{own}/replica"}
