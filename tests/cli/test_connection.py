"""The server of a command with `--database` asks nobody for credentials, so nobody else may reach it."""

from __future__ import annotations

import os
import sqlite3
import stat
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from authz.cli import connection
from authz.cli.connection import connect
from authz.runtime.settings import PREFIX
from authz.store.database import engine, file
from tests.access.certificates import server_certificate
from tests.cli.commands import run
from tests.databases import create_sqlite
from tests.issuer import Issuer


@pytest.mark.parametrize("depth", [0, 90])
def test_only_this_user_reaches_the_server_of_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, depth: int
) -> None:
    temporary = tmp_path / ("d" * depth)
    temporary.mkdir(exist_ok=True)
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    url = create_sqlite(tmp_path / "authz.db")
    before = {each.laddr for each in listening()}
    with connect(database=url) as client:
        assert list(client.read_courses()) == []
        opened = {each.laddr for each in listening()} - before
        (path,) = [Path(each) for each in opened if isinstance(each, str)]
        assert len(opened) == 1
        assert len(os.fsencode(path)) <= 107
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert not path.parent.exists()


@pytest.mark.parametrize(
    "command",
    [
        "admin grant service:ops operator",
        "backup copy.db",
        "audit checkpoint --key key",
        "courses --database sqlite:///authz.db",
    ],
)
def test_a_command_in_the_wrong_folder_names_the_database_and_makes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("audit", "keygen", "example.org/authz", "key").returncode == 0
    failed = run(*command.split())
    assert (failed.returncode, failed.stdout) == (2, "")
    assert "there is no database `authz.db`; name another with `--database`, or make" in failed.stderr
    assert [each.name for each in tmp_path.iterdir()] == ["key"]


@pytest.mark.parametrize("accepted", ["certificates", "keys of JWTs", "JWKS", "access tokens"])
def test_a_command_over_the_database_needs_no_credential_that_the_server_requires(
    tmp_path: Path, accepted: str
) -> None:
    pem, callers = server_certificate(tmp_path), tmp_path / "callers.toml"
    callers.write_text("")
    jwts = Issuer().settings(tmp_path)
    settings = {
        "certificates": {
            "tls_certificate_file": str(pem),
            "tls_key_file": str(pem),
            "tls_client_ca_file": str(pem),
            "callers_file": str(callers),
        },
        "keys of JWTs": jwts,
        "JWKS": jwts | {"jwt_keys_file": "", "jwt_jwks_url": "https://localhost:1/jwks"},
        "access tokens": {"access_tokens": "true"},
    }[accepted]
    variables = {f"{PREFIX}{name.upper()}": value for name, value in settings.items()}
    url = create_sqlite(tmp_path / "authz.db")
    granted = run("admin", "grant", "service:ops", "operator", "--database", url, **variables)
    assert (granted.returncode, granted.stderr) == (0, "")
    listed = run("memberships", "--database", url, **variables)
    assert (listed.returncode, listed.stderr) == (0, "")
    assert "service:ops" in listed.stdout


def listening() -> list[Any]:
    """Where this process listens: for TCP, or at a path."""
    process = psutil.Process()
    tcp = [each for each in process.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
    return tcp + [each for each in process.net_connections("unix") if each.laddr]


def test_a_command_waits_for_longer_than_its_server_does_for_a_lock() -> None:
    """Else it would say that no answer came, and not that another program holds the lock."""
    assert connection._EMBEDDED_TIMEOUT_S > engine._LOCK_TIMEOUT_S + file._TURN_TIMEOUT_S


def test_a_lock_that_another_program_holds_is_told(tmp_path: Path) -> None:
    url = create_sqlite(tmp_path / "authz.db")
    assert run("course", "create", "poetry", "--database", url).returncode == 0
    with closing(sqlite3.connect(tmp_path / "authz.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        refused = run("course", "create", "algebra", "--database", f"{url}?timeout=0.1")
    assert (refused.returncode, "another write holds the lock; try again" in refused.stderr) == (2, True)


@pytest.mark.parametrize("address", ["authz.internal", "http://127.0.0.1:1", "127.0.0.1:99999"])
def test_an_address_that_is_none_is_told_by_its_option(address: str) -> None:
    refused = run("courses", "--address", address)
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: --address is ")
    assert address in refused.stderr
