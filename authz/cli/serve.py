"""`authz serve`: run the service until SIGTERM."""

from __future__ import annotations

from authz.cli.setting_options import SETTING_HELP, setting_options


@setting_options(*SETTING_HELP)
def serve(**given: str | bool | None) -> None:
    """Run the service. A flag overrides its AUTHZ_ variable, which overrides the default.

    SIGTERM lets calls in flight finish; SIGHUP loads the policy again. With --no-follow, `authz follow` must
    run on this machine, and several servers may share one port.
    """
    import uvloop

    from authz.runtime.serve import serve as serve_alone
    from authz.runtime.settings import load_settings
    from authz.runtime.supervise import supervise

    settings = load_settings(given)
    uvloop.run(serve_alone(settings) if settings.workers == 1 else supervise(settings))
