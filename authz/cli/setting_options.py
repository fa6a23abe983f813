"""Options of a command that are settings of the server: `--max-watches` for AUTHZ_MAX_WATCHES."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer

from authz.runtime.settings import PREFIX, Settings

Command = TypeVar("Command", bound=Callable[..., None])

SETTING_HELP = {
    "address": "Where to listen: host:port (port 0: any free port) or unix:/path.",
    "database_url": "sqlite:///file or postgresql://….",
    "migrate_on_start": "Whether to migrate the database schema at start.",
    "policy_dir": "Folder with model.conf and default.csv.",
    "inline_types": "Types that a request may describe itself, separated by commas.",
    "workers": "Number of serving processes.",
    "follow": "Whether this process keeps the replica up to date; if not, `authz follow` must.",
    "replica_dir": "Folder of this machine's replica.",
    "replica_max_bytes": "Maximum size of the replica.",
    "schedule_as_batch": "Whether to run under Linux's SCHED_BATCH.",
    "max_staleness_s": "Seconds without news from the database before checks are refused.",
    "freshness_wait_s": "Seconds that a call without a deadline waits for the state that it requires.",
    "metrics_address": "host:port for Prometheus.",
    "tls_certificate_file": "PEM chain of the server.",
    "tls_key_file": "PEM key of the server.",
    "tls_client_ca_file": "PEM of the authority that client certificates must be from.",
    "max_concurrent_calls": "Calls in flight before the server sheds more.",
    "max_watches": "Watches before the server sheds more.",
    "watch_write_timeout_s": "Seconds that a watch waits for its client to read.",
    "max_message_bytes": "Maximum size of a request or an answer.",
    "read_threads": "Threads for listings from the database; checks need none.",
    "stop_grace_s": "Seconds for calls in flight to finish after SIGTERM.",
    "log_level": "debug, info, warning or error.",
}
"""The help of each setting."""


def setting_options(*names: str) -> Callable[[Command], Command]:
    """Give a command that takes `**given` one option for each of these settings."""
    parameters = [_parameter(name) for name in names]

    def decorate(command: Command) -> Command:
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what typer reads
        command.__annotations__ = {each.name: each.annotation for each in parameters}
        return command

    return decorate


def _parameter(name: str) -> inspect.Parameter:
    default = getattr(Settings(), name)
    help_ = f"{SETTING_HELP[name]} {PREFIX}{name.upper()}; default: {default if default != '' else 'empty'}."
    annotation: Any = Annotated[str | None, typer.Option(help=help_, metavar="TEXT")]
    if isinstance(default, bool):
        annotation = Annotated[bool | None, typer.Option(help=help_)]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
