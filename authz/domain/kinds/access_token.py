"""An access token: what is kept of it, its text, filter and rules."""

from __future__ import annotations

import re
from hashlib import sha256

import msgspec

from authz.domain.errors import malformed
from authz.domain.ids import Subject, SubjectType
from authz.domain.instants import Instant
from authz.domain.kinds.fields import Digest, Id
from authz.domain.kinds.kind import Filter, Kind, RecordKey
from authz.domain.vocabulary import Vocabulary

TOKEN_PREFIX = "authz_"  # noqa: S105  how every token begins, by which scanners of secrets find it
_TEXT = re.compile(rf"{TOKEN_PREFIX}([0-9a-f]{{12}})_[0-9a-f]{{64}}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


class AccessTokenKey(RecordKey, frozen=True, gc=False, tag="access_token_key"):
    """Identifies an access token."""

    id: Id

    def __str__(self) -> str:
        return f"access token {self.id}"


class AccessToken(msgspec.Struct, frozen=True, gc=False, tag_field="kind", tag="access_token"):
    """Who shows a text with this digest, before `ends_at`, is the service `subject`.

    The text is `authz_`, the id (12 digits), `_` and a secret of 256 random bits (64 digits), in lower-case
    hexadecimal. `digest` is its SHA-256, in hexadecimal: the text itself is kept nowhere.
    """

    id: Id
    subject: Subject
    digest: Digest
    ends_at: Instant

    @property
    def key(self) -> AccessTokenKey:
        """Its identity."""
        return AccessTokenKey(self.id)


class AccessTokenFilter(Filter[AccessToken], frozen=True, kw_only=True):
    """Access tokens by subject."""

    subject: Subject | None = None


def token_id(text: str) -> str | None:
    """The id in the text of an access token; None for a text of another form."""
    found = _TEXT.fullmatch(text)
    return None if found is None else found[1]


def token_text(token_id: str, secret: bytes) -> str:
    """The text of the access token with an id of 12 digits, and a secret of 32 bytes."""
    return f"{TOKEN_PREFIX}{token_id}_{secret.hex()}"


def digest_of(text: str) -> str:
    """What is kept of the text of an access token."""
    return sha256(text.encode()).hexdigest()


def _validate(token: AccessToken, _: Vocabulary) -> None:
    if token.subject.type is not SubjectType.SERVICE:
        raise malformed("subject", f"is `{token.subject}`, a person; a caller is a program: `service:<id>`")
    if not _DIGEST.fullmatch(token.digest):
        raise malformed("digest", "is no SHA-256 in lower-case hexadecimal; send that of the whole token")


ACCESS_TOKEN = Kind(
    AccessToken,
    AccessTokenKey,
    AccessTokenFilter,
    key_order=("id",),
    lookups=("subject",),
    rule=_validate,
)
