"""Binds the address of a server, and ends its connections."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from authz.domain.errors import InvalidArgumentError, invalid


def socket_path(address: str) -> str:
    """The path of a Unix socket; empty for another address."""
    return address.removeprefix("unix:").removeprefix("//") if address.startswith("unix:") else ""


def lock_socket(address: str) -> BinaryIO | None:
    """Lock the file of a Unix socket for this server, until the file that is returned is closed.

    gRPC and Envoy take a socket over from the server that has it, and delete whatever else is there. Returns
    None for another address. Raises `InvalidArgumentError` if another process listens there, or if something
    other than a socket is there.
    """
    path = socket_path(address)
    if not path:
        return None
    if os.path.lexists(path) and not Path(path).is_socket():
        raise cannot_listen(
            address, "this path has a file that is not a socket; set AUTHZ_ADDRESS to another path"
        )
    try:
        lock = Path(path + ".lock").open("ab")  # noqa: SIM115  open for as long as the server listens
    except OSError as error:
        raise cannot_listen(address, f"{error.strerror}; set AUTHZ_ADDRESS to another path") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        taken = is_answered(path)
    except BlockingIOError:
        taken = True
    if taken:
        lock.close()
        raise cannot_listen(address, "another process does; set AUTHZ_ADDRESS")
    return lock


def is_answered(path: str) -> bool:
    """Whether a process listens at a Unix socket. The socket of a server that was killed is still there."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError:
            return True
    return True


def reserve(address: str, *, exclusive: bool = True) -> tuple[socket.socket, str]:
    """Bind a port for workers that share it; return the socket that keeps it, and the address with that port.

    Raises `InvalidArgumentError` for an address that is in use: with `exclusive`, also by servers that share
    it.
    """
    host, _, port = address.rpartition(":")
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(
            host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        if exclusive:
            _require_unused(family, kind, protocol, target)
        shared = socket.socket(family, kind, protocol)
        shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            shared.bind(target)
        except OSError:
            # Connections of a server that did not share, which has ended, are remembered for a minute.
            shared.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            shared.bind(target)
    except (OSError, ValueError) as error:
        raise cannot_listen(address, f"{error}; set AUTHZ_ADDRESS to a free host:port") from None
    return shared, f"{host}:{shared.getsockname()[1]}"


def require_address(address: str, *, exclusive: bool) -> None:
    """Raise `InvalidArgumentError` for an address at which a server could not listen now, as it would."""
    if not socket_path(address):
        reserve(address, exclusive=exclusive)[0].close()
    elif lock := lock_socket(address):
        lock.close()


def _require_unused(family: int, kind: int, protocol: int, target: Any) -> None:
    """Bind without sharing: a shared bind would also succeed next to another service that shares."""
    with socket.socket(family, kind, protocol) as alone:
        alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        alone.bind(target)


def abort_connections(address: str) -> None:
    """Close every connection that this process accepted at an address that it listens at.

    Clients see UNAVAILABLE for calls without an answer, and try again elsewhere. gRPC itself answers a call
    that reaches it while it stops with CANCELLED, which says that the client gave up.
    Source: https://github.com/grpc/grpc/issues/41785
    """
    for descriptor in map(int, os.listdir("/dev/fd")):  # noqa: PTH208  names of descriptors, not of files
        with suppress(OSError):  # closed meanwhile
            if stat.S_ISSOCK(os.fstat(descriptor).st_mode):
                # gRPC may close its own at any time: only a duplicate is certain to stay what it is.
                with socket.socket(fileno=os.dup(descriptor)) as connection:
                    _shut_down_if_at(address, connection)


def _shut_down_if_at(address: str, connection: socket.socket) -> None:
    """Shut down a connection that was accepted at the address. Raises `OSError` for a socket without peer."""
    if connection.type == socket.SOCK_STREAM and connection.getpeername() is not None:
        name = connection.getsockname()
        own = f"unix:{name}" if isinstance(name, str) else f":{name[1]}"
        if address.replace("unix://", "unix:").endswith(own):
            connection.shutdown(socket.SHUT_RDWR)


def cannot_listen(address: str, problem: str) -> InvalidArgumentError:
    """The error for an address at which nothing can listen."""
    return invalid("AUTHZ_ADDRESS", f"cannot listen at `{address}`: {problem}")
