"""Settings of the server, from flags and `AUTHZ_*` variables: validated once, frozen."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from authz.domain.errors import ErrorReason, InvalidArgumentError

PREFIX = "AUTHZ_"
_LAST_PORT = 65_535
Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0, le=31_536_000)]
"""At most a year: clocks take no infinite timeout."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every setting, with its default. The variable is `AUTHZ_` and the name in capitals."""

    address: str = "127.0.0.1:50051"
    """Where to listen: `host:port` (port 0: any free port) or `unix:/path`."""
    database_url: str = "sqlite:///authz.db"
    """`sqlite:///relative.db`, `sqlite:////absolute.db` or `postgresql://user@host/name`."""
    policy_dir: str = ""
    """Folder with model.conf and default.csv. Empty: the policy that comes with the service."""
    replica_dir: str = ""
    """Folder of this machine's replica. Empty: next to a SQLite file, else `authz-<database>-<…>.replica`."""
    replica_max_bytes: Annotated[int, Meta(ge=1 << 20)] = 64 << 30
    """Largest size of the replica's file. It takes address space only, until it is filled."""
    schedule_as_batch: bool = False
    """Whether to run under Linux's SCHED_BATCH: more calls per second, less fair to other processes."""
    max_staleness_s: Seconds = 30.0
    """How long checks are answered after the replica was last known to be at the head."""
    workers: Annotated[int, Meta(ge=1, le=256)] = 1
    """Processes that serve. Several share the port and the replica, and another one follows."""
    follow: bool = True
    """Whether to keep the replica up to date. False: `authz follow` does, and servers may share the port."""
    metrics_address: str = ""
    """`host:port` of an HTTP endpoint `/metrics` for Prometheus. Empty: none."""
    inline_types: str = ""
    """Types, separated by commas, of which a request may describe unregistered resources."""
    migrate_on_start: bool = True
    """Whether to bring the database schema up to date before serving."""
    max_message_bytes: Positive = 4 * 1024 * 1024
    """Largest request and response."""
    max_concurrent_calls: Positive = 1024
    """Calls in flight beyond which new ones are shed with RESOURCE_EXHAUSTED."""
    max_watches: Positive = 64
    """Watches beyond which new ones are shed; they do not count as calls in flight."""
    watch_write_timeout_s: Seconds = 10.0
    """How long a watch waits for a client that does not read, before it ends with ABORTED."""
    read_threads: Positive = 4
    """Threads that list from the database; checks need none."""
    freshness_wait_s: Seconds = 5.0
    """How long a read waits for its token if the call has no deadline."""
    stop_grace_s: Annotated[float, Meta(ge=0, le=31_536_000)] = 10.0
    """How long calls in flight may continue after SIGTERM."""
    tls_certificate_file: str = ""
    """PEM chain of the server. Set together with `tls_key_file`; both empty: no TLS."""
    tls_key_file: str = ""
    """PEM key of the server."""
    tls_client_ca_file: str = ""
    """PEM of the authority of client certificates. If set, clients must present one."""
    log_level: str = "info"
    """`debug`, `info`, `warning` or `error`."""

    @property
    def inline_type_names(self) -> frozenset[str]:
        """`inline_types` as a set."""
        return frozenset(name.strip() for name in self.inline_types.split(",") if name.strip())


def load_settings(
    overrides: Mapping[str, str | bool | None] | None = None, *, environ: Mapping[str, str] = os.environ
) -> Settings:
    """Settings from `overrides` first, then from the environment, then from the defaults.

    Raises `InvalidArgumentError` that names the variable, also for an `AUTHZ_` variable that is no setting: a
    misspelt name must not silently mean the default.
    """
    known = {field.name for field in msgspec.structs.fields(Settings)}
    given: dict[str, str | bool] = {}
    for variable, value in environ.items():
        if not variable.startswith(PREFIX):
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name not in known:
            raise _invalid(variable, f"`{variable}` is not a setting; known are {_names(known)}")
        given[name] = value
    given |= {name: value for name, value in (overrides or {}).items() if value is not None}
    try:
        settings = msgspec.convert(given, Settings, strict=False)
    except msgspec.ValidationError as error:
        problem, _, place = str(error).rpartition(" - at `$.")
        name = place.rstrip("`")
        variable = PREFIX + name.upper()
        raise _invalid(variable, f"{variable} is `{given[name]}`: {problem.lower()}") from None
    _validate(settings)
    return settings


def _validate(settings: Settings) -> None:
    if not settings.address.startswith("unix:"):
        _require_address("address", settings.address)
    if settings.metrics_address:
        _require_address("metrics_address", settings.metrics_address)
    if bool(settings.tls_certificate_file) is not bool(settings.tls_key_file):
        raise _invalid(
            "AUTHZ_TLS_KEY_FILE", "AUTHZ_TLS_CERTIFICATE_FILE and AUTHZ_TLS_KEY_FILE go together; set both"
        )
    if settings.tls_client_ca_file and not settings.tls_key_file:
        raise _invalid("AUTHZ_TLS_CLIENT_CA_FILE", "AUTHZ_TLS_CLIENT_CA_FILE needs a certificate and a key")
    for name in ("tls_certificate_file", "tls_key_file", "tls_client_ca_file"):
        path = getattr(settings, name)
        if path and not Path(path).is_file():
            raise _invalid(PREFIX + name.upper(), f"{PREFIX}{name.upper()}: there is no file `{path}`")
    if settings.log_level not in ("debug", "info", "warning", "error"):
        raise _invalid(
            "AUTHZ_LOG_LEVEL",
            f"AUTHZ_LOG_LEVEL `{settings.log_level}` must be `debug`, `info`, `warning` or `error`",
        )


def _require_address(name: str, text: str) -> None:
    host, _, port = text.rpartition(":")
    if not (host and port.isascii() and port.isdigit() and int(port) <= _LAST_PORT):
        variable = PREFIX + name.upper()
        raise _invalid(variable, f"{variable} is `{text}`; write it like `127.0.0.1:50051`")


def _names(known: set[str]) -> str:
    return ", ".join(f"`{PREFIX}{name.upper()}`" for name in sorted(known))


def _invalid(variable: str, message: str) -> InvalidArgumentError:
    return InvalidArgumentError(ErrorReason.MALFORMED_FIELD, message, field=variable)
