"""What ends a start, looked at before the start makes a database or a replica. `authz doctor` looks, too."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from authz.domain.errors import InvalidArgumentError, invalid
from authz.policy.load import load_policy, policy_directory
from authz.runtime.api import open_limiter
from authz.runtime.audit import open_otlp_sink, open_signer
from authz.runtime.authentication import require_authentication
from authz.runtime.compose import replica_folder, require_inline_types, require_replica, tracing_module
from authz.runtime.settings import FILE_PREFIX, OTLP, PREFIX, Settings
from authz.runtime.tls_files import CertificateFiles
from authz.store import sqlite_file, sqlite_files

_FILES = (
    "tls_certificate_file",
    "tls_key_file",
    "tls_client_ca_file",
    "database_password_file",
    "callers_file",
    "jwt_keys_file",
    "limits_file",
    "checkpoint_key_file",
)
_LINE_BEGINS, _SIGNATURE_BEGINS = b"{", "\n\u2014 ".encode()
_NOTE_BYTES = 4096
"""Far more than a checkpoint has."""


def require_startable(settings: Settings) -> None:
    """Raise `InvalidArgumentError` for the first setting, file or package with which no server can start."""
    for check in CHECKS:
        check(settings)


def unreadable_files(settings: Settings) -> dict[str, InvalidArgumentError]:
    """The files that settings name and that this user may not read, each with the error that says so."""
    found = {}
    for name in _FILES:
        path = getattr(settings, name)
        if path and not (os.access(path, os.R_OK) and Path(path).is_file()):
            variable = PREFIX + name.upper()
            hint = "; make one with `authz audit keygen`" if name == "checkpoint_key_file" else ""
            problem = f"{variable} names `{path}`, which is no file that this user may read{hint}"
            found[path] = invalid(variable, problem)
    return found


def _require_readable(settings: Settings) -> None:
    for error in unreadable_files(settings).values():
        raise error


def _require_two_addresses(settings: Settings) -> None:
    if settings.metrics_address == settings.address and not settings.address.endswith(":0"):
        raise invalid(
            "AUTHZ_METRICS_ADDRESS",
            f"AUTHZ_METRICS_ADDRESS is `{settings.metrics_address}`, as is AUTHZ_ADDRESS; give another",
        )


def _require_certificates(settings: Settings) -> None:
    if settings.tls_key_file:
        CertificateFiles(settings).load()


def _require_trace_exporters(settings: Settings) -> None:
    if settings.traces:
        tracing_module().open_exporters()


def _require_otlp(settings: Settings) -> None:
    if OTLP in settings.decision_sinks:
        open_otlp_sink()


def _require_inline_types(settings: Settings) -> None:
    """For a SQLite database that the start would make, which begins with the shipped policy."""
    file = sqlite_file(settings.database_url)
    if settings.inline_type_names and file is not None and not file.exists():
        require_inline_types(settings, load_policy(policy_directory()).vocabulary)


def _require_own_files(settings: Settings) -> None:
    """Whatever the named file held, the server would append to it, or replace it by a checkpoint."""
    taken = {path.resolve(): "the database" for path in sqlite_files(settings.database_url)}
    taken[replica_folder(settings).resolve()] = "the replica"
    for variable, names, holds in (
        ("AUTHZ_DECISION_LOG", settings.decision_sinks, _holds_decisions),
        ("AUTHZ_CHECKPOINT_PUBLISH", settings.checkpoint_destinations, _holds_checkpoint),
    ):
        for name in names:
            if not name.startswith(FILE_PREFIX):
                continue
            path = Path(name.removeprefix(FILE_PREFIX)).absolute()
            found = path.resolve()
            owner = next((taken[each] for each in (found, *found.parents) if each in taken), "")
            problem = f"is for {owner}" if owner else ""
            if not owner and (begin := _begin_of(path)) and not holds(begin):
                problem = "holds something else"
            if problem:
                text = f"{variable} names the file `{path}`, which {problem}"
                raise invalid(variable, f"{text}; name a file of its own, empty or not there yet")
            if path.is_file() or not path.exists():  # no device, to which several may write
                taken[found] = variable


def _holds_decisions(begin: bytes) -> bool:
    return begin.startswith(_LINE_BEGINS)


def _holds_checkpoint(begin: bytes) -> bool:
    return _SIGNATURE_BEGINS in begin


def _begin_of(path: Path) -> bytes:
    """What a file begins with; nothing, if it is a device or a pipe, or not to be read."""
    with suppress(OSError):
        if path.is_file():
            with path.open("rb") as file:
                return file.read(_NOTE_BYTES)
    return b""


CHECKS: tuple[Callable[[Settings], object], ...] = (
    _require_readable,
    _require_two_addresses,
    require_authentication,
    open_limiter,
    open_signer,
    _require_certificates,
    _require_trace_exporters,
    _require_otlp,
    _require_own_files,
    require_replica,
    _require_inline_types,
)
"""Each raises `InvalidArgumentError` that names the setting, and makes nothing."""
