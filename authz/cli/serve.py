"""`authz serve`: run the service until SIGTERM."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from authz.cli.server_settings import run_server, setting_options
from authz.runtime.gc_freeze import without_collections
from authz.runtime.settings import Settings, load_settings

_OWN = {
    "database_url": ("database", "--database"),
    "replica_dir": ("replica", "--replica-dir"),
    "transport": ("transport", "--transport"),
    "follow": ("follower", "--no-follow"),
}
"""The settings that `--memory` determines: of what, and the flag that it refuses."""
_MEMORY_URL = re.compile(r"sqlite(\+pysqlite)?://(/:memory:)?")
"""The URLs of a database in memory, as SQLAlchemy names it. They mean `--memory`. Not `sqlite:///`, which is
also what `sqlite:///$FILE` becomes where the variable is not set."""
_IN_MEMORY = Path("/dev/shm")  # noqa: S108  only the folder in which a new one is made


@setting_options()
def serve(
    *,
    memory: Annotated[
        bool,
        typer.Option(
            "--memory",
            help="Start with an empty database, which is deleted at the end: for tests. So does `--database"
            " sqlite://`.",
        ),
    ] = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the configuration of Envoy for these settings.")
    ] = False,
    **given: str | bool | None,
) -> None:
    """Run the server. A flag overrides its AUTHZ_ variable, which overrides the default.

    SIGTERM drains calls in flight. With --no-follow, `authz follow` must run on
    this machine, and several servers may share one port.
    """
    if print_config:
        _print_config(load_settings(given))
        return
    if _MEMORY_URL.fullmatch(str(given["database_url"] or os.environ.get("AUTHZ_DATABASE_URL", ""))):
        memory, given["database_url"] = True, None
    if not memory:
        run_server(_main, given)
        return
    for name, (what, flag) in _OWN.items():
        if given[name] not in (None, True):
            raise typer.BadParameter(f"has a {what} of its own; leave {flag} out", param_hint="--memory")
    with _forgotten() as own:
        run_server(_main, given | own)


def _print_config(settings: Settings) -> None:
    from authz.runtime.envoy import shown_config, why_not_envoy

    cause = "AUTHZ_TRANSPORT is `grpc`" if settings.transport == "grpc" else why_not_envoy(settings)
    if cause:
        raise typer.BadParameter(
            f"grpc.aio serves, which has no configuration: {cause}", param_hint="--print-config"
        )
    print(shown_config(settings))


def _main(settings: Settings) -> Coroutine[Any, Any, None]:
    """What serves, unless this process becomes Envoy."""
    with without_collections():
        from authz.runtime.bind import require_address
        from authz.runtime.envoy import become_envoy, choose_transport
        from authz.runtime.probes import require_metrics_address

    settings = choose_transport(settings)
    # Here, because later the address is that of this server itself.
    require_metrics_address(settings.metrics_address)
    if settings.workers == 1:
        require_address(settings.address, exclusive=settings.follow)
    if settings.workers > 1:
        with without_collections():
            from authz.runtime.supervise import supervise

        return supervise(settings)
    if settings.transport == "envoy":
        become_envoy(settings)
    with without_collections():
        from authz.runtime.serve import serve as serve_alone

    return serve_alone(settings)


@contextmanager
def _forgotten() -> Iterator[dict[str, str | bool]]:
    """Settings of a database, and of its replica, that are deleted when the block ends."""
    folder = _IN_MEMORY if os.access(_IN_MEMORY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="authz-memory-", dir=folder) as own:
        # A process that became Envoy would delete nothing.
        yield {
            "database_url": f"sqlite:///{own}/authz.db",
            "replica_dir": f"{own}/replica",
            "transport": "grpc",
            "follow": True,
        }
