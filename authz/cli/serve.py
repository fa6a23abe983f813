"""`authz serve`: run the service until SIGTERM."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import typer

from authz.runtime.settings import PREFIX, Settings

FLAGS = {
    "address": "Where to listen: host:port (port 0: any free port) or unix:/path.",
    "database_url": "sqlite:///file or postgresql://….",
    "migrate_on_start": "Whether to migrate the database schema at start.",
    "policy_dir": "Folder with model.conf and default.csv.",
    "inline_types": "Types that a request may describe itself, separated by commas.",
    "workers": "Number of serving processes.",
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
"""The help of each setting; each is a flag."""


def serve(**given: str | None) -> None:
    """Run the server. A flag overrides its AUTHZ_ variable, which overrides the default.

    SIGTERM drains calls in flight; SIGHUP reloads the policy.
    """
    import uvloop

    from authz.runtime.server import serve as serve_here
    from authz.runtime.settings import load_settings
    from authz.runtime.supervisor import supervise

    settings = load_settings(given)
    uvloop.run(serve_here(settings) if settings.workers == 1 else supervise(settings))


def _parameter(name: str) -> inspect.Parameter:
    default = getattr(Settings(), name)
    told = f"{FLAGS[name]} {PREFIX}{name.upper()}; default: {default if default != '' else 'empty'}."
    # Text, parsed together with the variables, so that an invalid value gets the same message in both.
    option: Any = Annotated[str | None, typer.Option(help=told, metavar="TEXT")]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)


# One option for each setting: generated, so that none can be forgotten.
serve.__signature__ = inspect.Signature([_parameter(name) for name in FLAGS])  # type: ignore[attr-defined]  # what inspect reads
serve.__annotations__ = {parameter: _parameter(parameter).annotation for parameter in FLAGS}
