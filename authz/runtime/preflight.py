"""What ends a start, looked at before the start makes a database or a replica. `authz doctor` looks, too."""

from __future__ import annotations

from collections.abc import Callable

from authz.policy.load import load_policy, policy_directory
from authz.runtime.api import open_limiter
from authz.runtime.audit import open_otlp_sink, open_signer
from authz.runtime.authentication import require_authentication
from authz.runtime.compose import open_trace_exporters, require_inline_types, require_replica
from authz.runtime.settings import OTLP, Settings, invalid_setting
from authz.runtime.tls_files import CertificateFiles
from authz.store import sqlite_file


def require_startable(settings: Settings) -> None:
    """Raise `InvalidArgumentError` for the first setting, file or package with which no server can start."""
    for check in CHECKS:
        check(settings)


def _require_two_addresses(settings: Settings) -> None:
    if settings.metrics_address == settings.address and not settings.address.endswith(":0"):
        raise invalid_setting(
            "AUTHZ_METRICS_ADDRESS",
            f"AUTHZ_METRICS_ADDRESS is `{settings.metrics_address}`, as is AUTHZ_ADDRESS; give another",
        )


def _require_certificates(settings: Settings) -> None:
    if settings.tls_key_file:
        CertificateFiles(settings).load()


def _require_trace_exporters(settings: Settings) -> None:
    if settings.traces:
        open_trace_exporters()


def _require_otlp(settings: Settings) -> None:
    if OTLP in settings.decision_sinks:
        open_otlp_sink()


def _require_inline_types(settings: Settings) -> None:
    """For a SQLite database that the start would make, which begins with the shipped policy."""
    file = sqlite_file(settings.database_url)
    if settings.inline_type_names and file is not None and not file.exists():
        require_inline_types(settings, load_policy(policy_directory()).vocabulary)


CHECKS: tuple[Callable[[Settings], object], ...] = (
    _require_two_addresses,
    require_authentication,
    open_limiter,
    open_signer,
    _require_certificates,
    _require_trace_exporters,
    _require_otlp,
    require_replica,
    _require_inline_types,
)
"""Each raises `InvalidArgumentError` that names the setting, and makes nothing."""
