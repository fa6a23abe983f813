"""Connects a command to a running server, or to a server that the command starts over a database."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import grpc
import typer

from authz.cli.options import DATABASE_FLAGS
from authz.client import CallError, Client
from authz.domain.errors import ErrorReason, invalid

DEFAULT_ADDRESS = "127.0.0.1:50051"
_EMBEDDED_TIMEOUT_S = 15.0
"""Longer than a write waits for the lock of SQLite, so that the error says that another program holds it."""


def server_options(
    address: Annotated[
        str, typer.Option(envvar="AUTHZ_ADDRESS", help="The server to call, as host:port.")
    ] = DEFAULT_ADDRESS,
    database: Annotated[
        str,
        typer.Option(
            *DATABASE_FLAGS,
            help="Run without a server, over this database: sqlite:///relative.db, sqlite:////absolute.db or"
            " postgresql://user@host/name.",
        ),
    ] = "",
    token_file: Annotated[
        str | None,
        typer.Option(envvar="AUTHZ_TOKEN_FILE", help="File with the token or the JWT that proves who calls."),
    ] = None,
    acting_for: Annotated[
        str | None,
        typer.Option(help="The person that the command is run for, user:<id>, whose rights then bind it."),
    ] = None,
    tls_ca_file: Annotated[
        str | None, typer.Option(help="PEM of the authority of the server's certificate.")
    ] = None,
    tls_certificate_file: Annotated[
        str | None, typer.Option(help="PEM chain of the client certificate, if the server requires one.")
    ] = None,
    tls_key_file: Annotated[str | None, typer.Option(help="PEM key of the client certificate.")] = None,
    allow_plaintext_token: Annotated[
        bool,
        typer.Option("--allow-plaintext-token", help="Send the token to another machine even without TLS."),
    ] = False,
    use_proxy: Annotated[
        bool, typer.Option("--use-proxy", help="Go through the proxy that the variable http_proxy names.")
    ] = False,
) -> None:
    """The options that say how a command reaches the server, and who calls: the arguments of `connect`."""


_WITHOUT_CREDENTIALS: dict[str, str | bool | None] = {
    "tls_certificate_file": "",
    "tls_key_file": "",
    "tls_client_ca_file": "",
    "callers_file": "",
    "jwt_audience": "",
    "jwt_issuer": "",
    "jwt_keys_file": "",
    "jwt_jwks_url": "",
    "access_tokens": False,
    "allow_unauthenticated": False,
}
"""Settings of a server of one command: who may open the database needs no credential."""
_UNKNOWN = "; if the command changes anything, it is unknown whether it did: look, then run it again"
_SOCKET = "socket"
"""In a folder that no other user can open: the server of a command asks nobody for credentials."""


@contextmanager
def connect(
    *,
    address: str = DEFAULT_ADDRESS,
    database: str = "",
    acting_for: str | None = None,
    creates: bool = False,
    **channel: Any,
) -> Iterator[Client]:
    """A client of the server at `address`, or, given a database, of a server that runs inside the block.

    `channel` are other arguments of `Client`.

    Raises `CallError`, which names the address, if no server answers, and `InvalidArgumentError` if the file
    of a SQLite database is missing, unless `creates`.
    """
    if not database:
        with Client(address, acting_for=acting_for, **channel) as client:
            try:
                yield client
            except CallError as error:
                raise _with_address(error, address) from None
        return
    from authz.runtime.embedded import embedded
    from authz.runtime.folder_lock import parent_of_sockets
    from authz.runtime.settings import load_settings

    file = sqlite_file_of(database, must_exist=not creates)
    parent = parent_of_sockets("/authz-12345678/" + _SOCKET)
    with tempfile.TemporaryDirectory(prefix="authz-", dir=parent) as folder:
        settings = load_settings(_settings(database, folder, is_file=file is not None))
        with (
            embedded(settings) as target,
            Client(target, acting_for=acting_for, timeout_s=_EMBEDDED_TIMEOUT_S) as client,
        ):
            yield client


def sqlite_file_of(database: str, *, must_exist: bool = True) -> Path | None:
    """The file of a SQLite database; None for another.

    Raises `InvalidArgumentError` if it must exist and does not: a command that runs in the wrong folder would
    begin a new database in place of the one that servers use.
    """
    from authz.store import sqlite_file

    file = sqlite_file(database)
    if file is not None and must_exist and not file.exists():
        raise invalid(
            "--database",
            f"there is no database `{file}`; name another with `--database`, or make this one with `authz"
            " migrate`",
        )
    return file


def _settings(database: str, folder: str, *, is_file: bool) -> dict[str, str | bool | None]:
    """Of the server of a command, which listens in `folder`.

    Other settings come from the environment, so that the answers are those of `authz serve`.
    """
    return {
        "address": f"unix:{folder}/{_SOCKET}",
        "database_url": database,
        # Next to a SQLite file, the replica serves the next command too; that of PostgreSQL goes.
        "replica_dir": None if is_file else folder,
        "replica_name": None if is_file else "-",
        "follow": True,
        "log_level": "error",
        **_WITHOUT_CREDENTIALS,
    }


def _with_address(error: CallError, address: str) -> CallError:
    """The error; that of a call which no server answered in time names the address."""
    if error.reason == ErrorReason.CREDENTIAL_MISSING:
        flags = "set `--token-file`, or `--tls-certificate-file` and `--tls-key-file`"
        return CallError(error.code, error.reason, f"{error.message}; {flags}")
    if error.reason or error.tls_remedy:
        return error
    if error.is_unsent:
        gone = (
            f"no server answers at `{address}`; run `authz serve`, or set `--address` or `--database`"
            f" ({error.message})"
        )
    else:
        gone = f"the server at `{address}` went away before it answered{_UNKNOWN} ({error.message})"
    messages = {
        grpc.StatusCode.DEADLINE_EXCEEDED: f"the server at `{address}` did not answer in time: it is"
        f" slow, or another program holds a lock of its database{_UNKNOWN}, or set another `--address`",
        grpc.StatusCode.UNAVAILABLE: gone,
    }
    return CallError(error.code, "", messages[error.code]) if error.code in messages else error
