"""JWTs: verified by rules that the operator has fixed, and bound to a certificate if they say so.

Source: RFC 7519, RFC 8725, RFC 8705 (`cnf`, `x5t#S256`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from hmac import compare_digest
from typing import Any

import jwt
import msgspec
from jwt.exceptions import PyJWTError

from authz.access.authentication import Transport, invalid
from authz.access.certificates import read_certificate
from authz.access.keys import Key, Keys
from authz.access.principal import Principal
from authz.domain.cache import BoundedCache
from authz.domain.ids import Subject, SubjectType, is_id

_LEEWAY_S = 5
"""How far the clock of the issuer may differ."""
_MAX_CACHED = 1024
_REQUIRED = ["exp", "iss", "aud", "sub"]
_SERVICE = f"{SubjectType.SERVICE}:"
_REMEDIES: Mapping[type[PyJWTError], str] = {
    jwt.InvalidAudienceError: "get one whose `aud` is what AUTHZ_JWT_AUDIENCE names",
    jwt.InvalidIssuerError: "get one from the issuer that AUTHZ_JWT_ISSUER names",
    jwt.ImmatureSignatureError: "use it when it has begun, or correct the clock that is wrong",
}
"""By what the library finds wrong, what to do, where a new JWT of the same kind would be refused, too."""


class JwtRules(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator has fixed for every JWT. `types` are those of the header `typ`, in lower case."""

    issuer: str
    audience: str
    algorithms: frozenset[str]
    types: frozenset[str]


class _Verified(msgspec.Struct, frozen=True):
    principal: Principal
    ends_at_s: float
    thumbprint: str
    keys: tuple[Key, ...]


class JwtVerifier:
    """Says which caller a JWT proves: `service:<sub>`.

    Caches those that it verified until they end or the keys change.
    """

    def __init__(self, rules: JwtRules, keys: Keys, *, clock: Callable[[], float] = time.time) -> None:
        self._rules, self._keys, self._clock = rules, keys, clock
        self._cache = BoundedCache[str, _Verified](_MAX_CACHED)

    def verify(self, token: str, transport: Transport) -> Principal:
        """The principal of a JWT. Raises as `Authenticator.authenticate`."""
        keys = self._keys.current()
        found = self._cache.get(token)
        if found is None or found.keys is not keys:
            found = self._cache[token] = self._verify(token, keys)
        if self._clock() >= found.ends_at_s:
            del self._cache[token]
            raise invalid("the JWT has ended; get a new one from its issuer")
        if found.thumbprint:
            _require_bound(found.thumbprint, transport)
        return found.principal

    def _verify(self, token: str, keys: tuple[Key, ...]) -> _Verified:
        try:
            header = jwt.get_unverified_header(token)
            algorithm = self._require_header(header)
            claims = self._claims(token, self._candidates(header, algorithm, keys), algorithm)
        except PyJWTError as error:
            remedy = _REMEDIES.get(type(error), "get a new one")
            raise invalid(f"the JWT is not valid: {str(error).lower()}; {remedy}") from None
        return _Verified(
            principal=Principal(_caller(claims["sub"])),
            ends_at_s=int(claims["exp"]) + _LEEWAY_S,
            thumbprint=_thumbprint(claims.get("cnf")),
            keys=keys,
        )

    def _require_header(self, header: Mapping[str, Any]) -> str:
        """The algorithm of a header that the rules allow."""
        # The caller writes the header, so a value may have any type.
        algorithm = str(header.get("alg"))
        kind = str(header.get("typ", "")).lower().removeprefix("application/")
        if algorithm not in self._rules.algorithms:
            raise invalid(
                "the algorithm of the JWT is not among those that AUTHZ_JWT_ALGORITHMS names;"
                " let its issuer use one of them"
            )
        if kind not in self._rules.types:
            raise invalid(
                "the `typ` of the JWT is not among those that AUTHZ_JWT_TYPES names;"
                " send an access token of the issuer"
            )
        if "crit" in header:
            raise invalid(
                "the JWT demands extensions (`crit`) that this server does not know; get one without"
            )
        return algorithm

    def _candidates(self, header: Mapping[str, Any], algorithm: str, keys: tuple[Key, ...]) -> list[Key]:
        """The keys that may have signed it: those with its key id, and without one all that fit."""
        kid = header.get("kid")
        fitting = [
            key for key in keys if algorithm in key.algorithms and (kid is None or key.id in (None, kid))
        ]
        if not fitting:
            self._keys.refresh_soon()
            raise invalid(
                "the JWT is signed with a key that this server does not know; if its issuer has a new key,"
                " try again in some seconds"
            )
        return fitting

    def _claims(self, token: str, candidates: list[Key], algorithm: str) -> Mapping[str, Any]:
        for number, key in enumerate(candidates, 1):
            try:
                return jwt.decode(
                    token,
                    key.value,
                    algorithms=[algorithm],
                    audience=self._rules.audience,
                    issuer=self._rules.issuer,
                    leeway=_LEEWAY_S,
                    options={"require": _REQUIRED},
                )
            except jwt.InvalidSignatureError:
                if number == len(candidates):
                    self._keys.refresh_soon()
                    raise
        raise AssertionError("there is always a candidate")


def _caller(sub: str) -> Subject:
    """The caller that `sub` names: a program, with or without `service:`."""
    name = sub.removeprefix(_SERVICE)
    if not is_id(name) or name.startswith(f"{SubjectType.USER}:"):
        raise invalid("the `sub` of the JWT is no id of a service; get one for the program that calls")
    return Subject(SubjectType.SERVICE, name)


def _thumbprint(confirmation: object) -> str:
    """What a JWT is bound to; empty for nothing. Raises `UnauthenticatedError` for what is unknown here."""
    if confirmation is None:
        return ""
    thumbprint = confirmation.get("x5t#S256") if isinstance(confirmation, Mapping) else None
    if not isinstance(thumbprint, str) or not thumbprint or len(confirmation) != 1:  # type: ignore[arg-type]  # a mapping
        raise invalid(
            "the JWT is bound (`cnf`) in a way that this server cannot verify; get one that is bound to a"
            " certificate (`x5t#S256`), or to nothing"
        )
    return thumbprint


def _require_bound(thumbprint: str, transport: Transport) -> None:
    pem = transport.certificate()
    if not pem or not compare_digest(read_certificate(pem).thumbprint.encode(), thumbprint.encode()):
        raise invalid(
            "the JWT is bound to a client certificate that this connection does not show;"
            " connect with that certificate"
        )
