"""Makes access tokens where they are used: the service gets a digest, and never sees the token."""

from __future__ import annotations

import secrets
import time

from authz.domain.entities import AccessToken
from authz.domain.errors import malformed
from authz.domain.ids import Subject
from authz.domain.instants import US_PER_S, Instant, format_instant
from authz.domain.kinds.access_token import digest_of, token_text

_ID_BYTES, _SECRET_BYTES = 6, 32


def make_access_token(caller: Subject, *, ends_at: Instant) -> tuple[str, AccessToken]:
    """A new access token of a service: the token itself, and the record to write of it.

    Raises `InvalidArgumentError` for an end that is over by the clock of this machine.
    """
    if ends_at <= time.time() * US_PER_S:
        end = format_instant(ends_at)
        raise malformed("ends_at", f"is {end}, in the past by the clock of this machine; give a later time")
    id_ = secrets.token_hex(_ID_BYTES)
    text = token_text(id_, secrets.token_bytes(_SECRET_BYTES))
    return text, AccessToken(id=id_, subject=caller, digest=digest_of(text), ends_at=ends_at)
