"""Which addresses only this machine reaches."""

from __future__ import annotations

import ipaddress


def is_local(address: str) -> bool:
    """Whether an address, host:port or unix:/path, is of this machine alone: loopback, or a Unix socket."""
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    host = address.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
