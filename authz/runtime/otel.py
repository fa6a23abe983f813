"""The parts of OpenTelemetry that traces and decision log share. Imported only if one of them is on.

Source: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

import os
from importlib.metadata import entry_points, version
from typing import Any

from opentelemetry.sdk.resources import Resource

from authz.domain.errors import invalid
from authz.runtime.settings import OTLP

VERSION = version("qalamchat-authz")


def open_resource() -> Resource:
    """What the OTEL_ variables say of this service; its name is `authz` unless they name it."""
    os.environ.setdefault("OTEL_SERVICE_NAME", "authz")
    return Resource.create({"service.version": VERSION})


def open_exporter(signal: str, name: str, *, variable: str) -> Any:
    """The installed exporter of a signal (`traces`, `logs`), with the options of the OTEL_ variables.

    `otlp` means OTLP over the protocol that they name, HTTP by default. Raises `InvalidArgumentError`, naming
    the variable, for an exporter that is not installed.
    """
    if name == OTLP:
        variables = (f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
        protocol = next(filter(None, map(os.environ.get, variables)), "http/protobuf")
        name = f"otlp_proto_{protocol.partition('/')[0]}"
    group = f"opentelemetry_{signal}_exporter"
    for found in entry_points(group=group, name=name):
        return found.load()()
    known = ", ".join(sorted({each.name for each in entry_points(group=group)}))
    raise invalid(
        variable, f"{variable} needs the exporter `{name}`, which is not installed; installed are {known}"
    )
