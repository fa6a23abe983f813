"""`authz serve`: run the service until SIGTERM."""

from __future__ import annotations

import inspect
from typing import Annotated, Any

import typer

from authz.runtime.settings import PREFIX, Settings

FLAGS = {
    "address": "Where to listen: host:port (port 0: any free one) or unix:/path.",
    "database_url": "sqlite:///file or postgresql://….",
    "migrate_on_start": "Whether to bring the database schema up to date first.",
    "policy_dir": "Folder with model.conf and default.csv.",
    "inline_types": "Types that a request may describe itself, with commas between.",
    "workers": "Processes that serve.",
    "replica_dir": "Folder of this machine's replica.",
    "replica_max_bytes": "Most that the replica may grow to.",
    "schedule_as_batch": "Whether to run under Linux's SCHED_BATCH.",
    "max_staleness_s": "Seconds without news of the database before checks are refused.",
    "freshness_wait_s": "Seconds that a call without a deadline waits for its token.",
    "metrics_address": "host:port for Prometheus.",
    "tls_certificate_file": "PEM chain of the server.",
    "tls_key_file": "PEM key of the server.",
    "tls_client_ca_file": "PEM of the authority that client certificates must come from.",
    "max_concurrent_calls": "Calls in flight before shedding.",
    "max_watches": "Watches before shedding.",
    "watch_write_timeout_s": "Seconds that a watch waits to be read.",
    "max_message_bytes": "Largest request and answer.",
    "read_threads": "Threads that list from the database; checks need none.",
    "stop_grace_s": "Seconds that calls in flight may go on after SIGTERM.",
    "log_level": "debug, info, warning or error.",
}
"""What each setting is; all have a flag."""


def serve(**given: str | None) -> None:
    """Run the service. A flag wins over its AUTHZ_ variable, that over the default.

    SIGTERM lets calls in flight finish; SIGHUP loads the policy again.
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
    # As text, and read where the variables are, so that both are told of alike when they are wrong.
    option: Any = Annotated[str | None, typer.Option(help=told, metavar="TEXT")]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)


# One option for each setting, which no list of parameters could be held to.
serve.__signature__ = inspect.Signature([_parameter(name) for name in FLAGS])  # type: ignore[attr-defined]  # what inspect reads
serve.__annotations__ = {parameter: _parameter(parameter).annotation for parameter in FLAGS}
