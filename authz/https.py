"""Requests over HTTPS to addresses that the operator named.

A slow or hostile answer costs a bounded time and a bounded size. A redirect is a failure: the operator named
one address, and no answer may send the server to another.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import HTTPRedirectHandler, HTTPSHandler, Request, build_opener

_TIMEOUT_S = 10.0
"""For the answer as a whole, and for each address of the name that does not accept the connection. Only the
resolver of the operating system bounds a look-up of the name."""
_MAX_BYTES = 1 << 20


def fetch(url: str) -> bytes:
    """The body of the answer, 1 MiB at most. Raises `ConnectionError`, which names the address."""
    with _answer(Request(url)) as answer:  # noqa: S310  the settings accept https alone
        content = answer.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise ConnectionError(f"its answer has more than {_MAX_BYTES} bytes")
        if answer.length:
            raise ConnectionError(f"its answer ended {answer.length} bytes early")
        return content


def post(url: str, text: str) -> None:
    """Post text. Raises `ConnectionError`, which names the address, unless the answer is 2xx."""
    headers = {"content-type": "text/plain; charset=utf-8"}
    with _answer(Request(url, text.encode(), headers)):  # noqa: S310  the settings accept https alone
        pass


@contextmanager
def _answer(request: Request) -> Iterator[HTTPResponse]:
    """The answer, if it is 2xx. What fails, also inside the block, is a `ConnectionError`."""
    opener = build_opener(_NoRedirect, HTTPSHandler(context=_context(time.monotonic() + _TIMEOUT_S)))
    try:
        with opener.open(request, timeout=_TIMEOUT_S) as answer:
            yield answer
    except (OSError, ValueError, HTTPException) as error:
        raise ConnectionError(f"`{request.full_url}`: {_cause(error)}") from error


def _context(ends_at_s: float) -> ssl.SSLContext:
    """A context whose connections read until a time of `time.monotonic`. The timeout of a socket alone begins
    again with each byte that is received."""

    class BoundedSocket(ssl.SSLSocket):
        def recv_into(self, *arguments: Any, **named: Any) -> int:
            left_s = ends_at_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            self.settimeout(left_s)
            return super().recv_into(*arguments, **named)

    context = ssl.create_default_context()
    context.sslsocket_class = BoundedSocket
    return context


class _NoRedirect(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _cause(error: Exception) -> str:
    match error:
        case HTTPError(code=code, headers=headers) if location := headers["location"]:
            return f"it redirects ({code}) to `{location}`; name that address if you trust it"
        case HTTPError(code=code):
            return f"it answered with status {code}; its log says why"
        case TimeoutError() | URLError(reason=TimeoutError()):
            return f"no whole answer within {_TIMEOUT_S:g} s; see whether it is overloaded or out of reach"
        case URLError(reason=ssl.SSLCertVerificationError(verify_message=message)):
            return (
                f"its certificate is refused: {message}; correct it, or set SSL_CERT_FILE to the PEM file of"
                " an authority of your own"
            )
        case URLError(reason=reason):
            return f"not reached: {reason}; check the name and the network"
        case _:
            return f"{error or 'the connection ended early'}; see whether it is the right address"
