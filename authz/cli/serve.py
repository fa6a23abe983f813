"""`authz serve`: run the service until SIGTERM."""

from __future__ import annotations

from typing import Annotated

import typer

Text = str | None


def serve(
    address: Annotated[Text, typer.Option(help="host:port to listen at.")] = None,
    database_url: Annotated[Text, typer.Option(help="sqlite:///file or postgresql://….")] = None,
    replica_dir: Annotated[Text, typer.Option(help="Folder of this machine's replica.")] = None,
    workers: Annotated[Text, typer.Option(help="Processes that serve.")] = None,
    max_staleness_s: Annotated[
        Text, typer.Option(help="Seconds without news of the database before checks are refused.")
    ] = None,
    metrics_address: Annotated[Text, typer.Option(help="host:port for Prometheus.")] = None,
    policy_dir: Annotated[Text, typer.Option(help="Folder with model.conf and default.csv.")] = None,
    inline_types: Annotated[Text, typer.Option(help="Types that a request may describe itself.")] = None,
    tls_certificate_file: Annotated[Text, typer.Option(help="PEM chain of the server.")] = None,
    tls_key_file: Annotated[Text, typer.Option(help="PEM key of the server.")] = None,
    tls_client_ca_file: Annotated[Text, typer.Option(help="PEM that client certificates come from.")] = None,
    max_concurrent_calls: Annotated[Text, typer.Option(help="Calls in flight before shedding.")] = None,
    max_watches: Annotated[Text, typer.Option(help="Watches before shedding.")] = None,
    watch_write_timeout_s: Annotated[
        Text, typer.Option(help="Seconds that a watch waits to be read.")
    ] = None,
    max_message_bytes: Annotated[Text, typer.Option(help="Largest request and answer.")] = None,
    stop_grace_s: Annotated[Text, typer.Option(help="Seconds that calls may go on after SIGTERM.")] = None,
    log_level: Annotated[Text, typer.Option(help="debug, info, warning or error.")] = None,
) -> None:
    """Run the service. A flag wins over its AUTHZ_ variable, that over the default.

    SIGTERM lets calls in flight finish; SIGHUP loads the policy again.
    """
    given = dict(locals())
    import uvloop

    from authz.server import serve as serve_here
    from authz.settings import load_settings
    from authz.supervisor import supervise

    settings = load_settings(given)
    uvloop.run(serve_here(settings) if settings.workers == 1 else supervise(settings))
