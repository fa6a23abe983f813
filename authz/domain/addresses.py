"""Which addresses only this machine reaches."""

from __future__ import annotations

import ipaddress
import re

_PORT = re.compile(r":[^:\]]*$")


def is_local(address: str) -> bool:
    """Whether an address (host, host:port, unix:/path) is of this machine alone: loopback, or a socket."""
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    host = _PORT.sub("", address).strip("[]")
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
