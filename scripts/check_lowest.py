"""Install the wheel with the lowest versions that it allows, then use the client alone and the server.

Needs PyPI. Raises when a step fails, with what the step printed above.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
UV = Path(sys.executable).parent / "uv"
EXTRA_MESSAGE = "pip install 'qalamchat-authz[server]'"
IMPORT_ALL = """
import importlib, pkgutil, authz
for module in pkgutil.walk_packages(authz.__path__, "authz."):
    if not module.name.startswith("authz.store.migrations."):  # Alembic runs these itself
        importlib.import_module(module.name)
"""
SHOW_ALL_HELP = """
import typer
from typer.testing import CliRunner
from authz.cli.main import app

def show(command, *path):
    result = CliRunner().invoke(app, [*path, "--help"])
    if result.exit_code:
        raise result.exception
    for name, child in getattr(command, "commands", {}).items():
        show(child, *path, name)

show(typer.main.get_command(app))
"""
CALL = """
import sys
from authz.client import Client
with Client(sys.argv[1]) as client:
    print(client.check("user:maya", "read", "material:m-1").reason)
"""


class Environment:
    """A virtual environment with the wheel, and below it the lowest versions that the wheel allows."""

    def __init__(self, folder: Path, wheel: Path, *extras: str) -> None:
        self._folder = folder
        _run(UV, "venv", "--quiet", "--python", sys.executable, folder)
        for what in (
            ("--resolution=lowest-direct", f"--requirements={ROOT / 'pyproject.toml'}", *extras),
            ("--no-deps", wheel),
        ):
            _run(UV, "pip", "install", "--quiet", "--python", folder, *what)
        _run(UV, "pip", "check", "--quiet", "--python", folder)

    def command(self, name: str) -> Path:
        """An executable of the environment."""
        return self._folder / "bin" / name

    def versions(self) -> str:
        """What is installed, a line."""
        return ", ".join(_run(UV, "pip", "freeze", "--quiet", "--python", self._folder).split("\n")[:-1])


def _run(*command: str | Path, code: int = 0) -> str:
    """What a command printed. Raises `CalledProcessError` when it ends with another code than `code`."""
    done = subprocess.run(  # noqa: S603  own arguments
        command,
        cwd=tempfile.gettempdir(),  # not the sources, which would be imported
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != code:
        print(done.stdout, file=sys.stderr)
        raise subprocess.CalledProcessError(done.returncode, [str(part) for part in command])
    return done.stdout


@contextmanager
def _serving(server: Environment, folder: Path) -> Iterator[str]:
    """The address of `authz serve` on an empty database."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("AUTHZ_")}
    environ |= {
        "AUTHZ_ADDRESS": "127.0.0.1:0",
        "AUTHZ_DATABASE_URL": f"sqlite:///{folder / 'authz.db'}",
        "AUTHZ_DECISION_LOG": "otlp",  # which imports what OpenTelemetry may move
    }
    command: list[str | Path] = [server.command("authz"), "serve"]
    with subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603  ditto
        try:
            assert process.stderr is not None  # noqa: S101  it is piped
            for line in process.stderr:
                if found := re.search(r'"address": ?"([^"]+)"', line):
                    yield found[1]
                    return
            raise RuntimeError("the server did not start")
        finally:
            process.terminate()


def main() -> None:
    """Check both installations; print the versions that were used."""
    with tempfile.TemporaryDirectory(prefix="authz-lowest-") as scratch:
        folder = Path(scratch)
        _run(UV, "build", "--quiet", "--wheel", f"--out-dir={folder}", ROOT)
        [wheel] = folder.glob("*.whl")
        client = Environment(folder / "client", wheel)
        print(f"client: {client.versions()}")
        if EXTRA_MESSAGE not in _run(client.command("authz"), "--help", code=2):
            raise RuntimeError("`authz` without the extra `server` does not say how to install it")
        server = Environment(
            folder / "server", wheel, "--extra=server", "--extra=otel", "--extra=testing", "--extra=web"
        )
        print(f"server: {server.versions()}")
        _run(server.command("python"), "-c", IMPORT_ALL)
        _run(server.command("python"), "-c", SHOW_ALL_HELP)
        print(_run(server.command("authz"), "--version"), end="")
        print(_run(server.command("authz"), "demo").splitlines()[-1])
        with _serving(server, folder) as address:
            print(f"a call of the client: {_run(client.command('python'), '-c', CALL, address)}", end="")


if __name__ == "__main__":
    main()
