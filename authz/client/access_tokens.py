"""Makes access tokens where they are used: the service gets a digest, and never sees the token."""

from __future__ import annotations

import secrets

from authz.domain.entities import AccessToken
from authz.domain.ids import Subject
from authz.domain.instants import Instant
from authz.domain.kinds.access_token import digest_of, token_text

_ID_BYTES, _SECRET_BYTES = 6, 32


def make_access_token(caller: Subject, *, ends_at: Instant) -> tuple[str, AccessToken]:
    """A new access token of a service: the token itself, and the record to write of it."""
    id_ = secrets.token_hex(_ID_BYTES)
    text = token_text(id_, secrets.token_bytes(_SECRET_BYTES))
    return text, AccessToken(id=id_, subject=caller, digest=digest_of(text), ends_at=ends_at)
