"""`authz serve`: run the service until SIGTERM."""

from __future__ import annotations

from authz.cli.server import run_server, setting_options


@setting_options()
def serve(**given: str | bool | None) -> None:
    """Run the server. A flag overrides its AUTHZ_ variable, which overrides the default.

    SIGTERM drains calls in flight. With --no-follow, `authz follow` must run on
    this machine, and several servers may share one port.
    """
    from authz.runtime.serve import serve as serve_alone
    from authz.runtime.supervise import supervise

    run_server(
        lambda settings: serve_alone(settings) if settings.workers == 1 else supervise(settings), given
    )
