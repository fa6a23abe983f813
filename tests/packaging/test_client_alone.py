"""The client without the `server` extra: what it imports, and what the command line and the plugin say."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import pytest

import authz
from tests.serving import serving

CLIENT_LAYERS = {"client", "domain", "wire", "v1"}

CALL = """
import sys
from authz.client import Client
with Client(sys.argv[1]) as client:
    print(client.check("user:maya", "read", "material:m1").reason)
print(*(name for name in sys.modules if name.startswith("authz.")))
"""
COMMAND = "from authz.cli.__main__ import main; main()"


def _server_packages() -> set[str]:
    """The importable packages of the distributions that only the extra `server` requires."""
    wanted = {
        re.split(r"[^\w-]", text)[0].lower()
        for text in requires("qalamchat-authz") or ()
        if re.search(r"extra == .server.", text)
    }
    return {
        package
        for package, distributions in packages_distributions().items()
        if wanted & {name.lower() for name in distributions}
    }


def without_server(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run code where nothing of the extra `server` can be imported."""
    hide = f"import sys; sys.modules |= dict.fromkeys({sorted(_server_packages())})"
    return subprocess.run(
        [sys.executable, "-c", f"{hide}\n{code}", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_what_is_hidden_is_what_the_server_runs_on() -> None:
    assert {"alembic", "casbin", "grpc_health", "lmdb", "psycopg", "sqlalchemy", "typer"} < _server_packages()
    assert not {"grpc", "google", "msgspec"} & _server_packages()


def test_a_client_calls_a_server_and_loads_no_module_of_it(sqlite_url: str) -> None:
    with serving(sqlite_url) as (_, address):
        done = without_server(CALL, address)
    assert done.returncode == 0, done.stderr
    reason, loaded = done.stdout.splitlines()
    assert reason == "RESOURCE_UNKNOWN"
    assert {name.split(".")[1] for name in loaded.split()} == CLIENT_LAYERS


@pytest.mark.parametrize("arguments", [["check", "user:maya", "read", "material:m1"], ["serve"], ["--help"]])
def test_a_command_names_the_extra_that_it_needs(arguments: list[str]) -> None:
    done = without_server(COMMAND, *arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "pip install 'qalamchat-authz[server]'" in done.stderr


def test_with_json_the_missing_extra_is_a_json_object() -> None:
    done = without_server(COMMAND, "courses", "--json")
    fault = json.loads(done.stderr)
    assert (done.returncode, fault["code"]) == (2, "FAILED_PRECONDITION")
    assert "pip install 'qalamchat-authz[server]'" in fault["message"]


def test_the_version_needs_no_extra() -> None:
    done = without_server(COMMAND, "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"authz {authz.__version__}\n", "")


def test_the_plugin_names_the_extra_that_the_service_needs(tmp_path: Path) -> None:
    file = tmp_path / "test_access.py"
    file.write_text("def test_access(authz_service): ...\n")
    done = without_server("import pytest; pytest.main()", "--rootdir", str(tmp_path), str(file))
    assert "pip install 'qalamchat-authz[server-grpc,testing]'" in done.stdout, done.stderr
    assert "ModuleNotFoundError" not in done.stdout


def test_a_command_that_misses_one_package_names_it() -> None:
    hide = "import sys; sys.modules['lmdb'] = None\n"
    done = subprocess.run(
        [sys.executable, "-c", hide + COMMAND, "demo"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr.splitlines()[-1:]) == (
        2,
        [
            "error: the command line needs `lmdb`, which is not installed; "
            "run `pip install 'qalamchat-authz[server]'`"
        ],
    )


@pytest.mark.parametrize(
    ("hidden", "code", "extra"),
    [
        ("sqlalchemy", "import authz.client.sql", "sql"),
        ("starlette", "import authz.client.web", "web"),
        (
            "fastapi",
            "import authz.client.web as web; web.require('read', 'material:m', subject=str)",
            "web",
        ),
    ],
)
def test_a_part_of_the_client_names_the_extra_that_it_needs(hidden: str, code: str, extra: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.modules[{hidden!r}] = None\n{code}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"ModuleNotFoundError: needs `{hidden}`, which is not installed;"
        f" run `pip install 'qalamchat-authz[{extra}]'`"
    )
