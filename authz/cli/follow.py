"""`authz follow`: keep this machine's replica up to date until SIGTERM."""

from __future__ import annotations

from authz.cli.server_settings import run_server, setting_options
from authz.runtime.gc_freeze import without_collections


@setting_options(
    "database_url",
    "database_password_file",
    "migrate_on_start",
    "replica_dir",
    "replica_max_bytes",
    "metrics_address",
    "log_level",
)
def follow(**given: str | bool | None) -> None:
    """Keep this machine's replica up to date for servers that run with --no-follow.

    Exit code 0 after SIGTERM or SIGINT; 2 when it cannot start, also when there is neither a database nor a
    replica of it.
    """
    with without_collections():
        from authz.runtime.follow import follow as follow_until_stopped

    run_server(follow_until_stopped, given)
