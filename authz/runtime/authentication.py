"""The authenticators that the settings name, and the refusal to serve other machines without one.

What reads certificates and JWTs is imported where the settings name it: that takes a twentieth of a start.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from authz.access.access_tokens import AccessTokenVerifier
from authz.access.algorithms import accepted_algorithms
from authz.access.authentication import Authenticator
from authz.access.bearer import BearerAuthenticator, Verifier
from authz.domain.addresses import is_local
from authz.domain.errors import InvalidArgumentError, invalid
from authz.domain.instants import Instant
from authz.domain.ports import Snapshot
from authz.runtime.settings import Settings, split_names

log = structlog.get_logger()


def open_authentication(
    settings: Settings, newest: Callable[[], tuple[Snapshot, Instant]]
) -> tuple[tuple[Authenticator, ...], Callable[[], None]]:
    """The authenticators that the settings name, and what ends them. A bearer credential, if a call has one,
    comes first.

    `newest` is as in `AccessTokenVerifier`. Asks AUTHZ_JWT_JWKS_URL once: not for the event loop. Raises
    `InvalidArgumentError` for files and settings that cannot be used, and as `require_authentication`.
    """
    require_authentication(settings)
    found: list[Authenticator] = []
    jwts, close = _jwts(settings) if settings.jwt_issuer else (None, lambda: None)
    if jwts or settings.access_tokens:
        tokens = AccessTokenVerifier(newest) if settings.access_tokens else None
        found.append(BearerAuthenticator(tokens=tokens, jwts=jwts))
    if settings.callers_file:
        found.append(_certificates(settings))
    return tuple(found), close


def require_authentication(settings: Settings) -> None:
    """Raise `InvalidArgumentError` for settings that would let anybody in from other machines."""
    _require_complete(settings)
    if authenticates(settings):
        if settings.allow_unauthenticated:
            raise invalid(
                "AUTHZ_ALLOW_UNAUTHENTICATED",
                "AUTHZ_ALLOW_UNAUTHENTICATED is set, and callers must prove who they are by another setting;"
                " unset one of them",
            )
    elif not (is_local(settings.address) or settings.allow_unauthenticated):
        raise invalid(
            "AUTHZ_ADDRESS",
            f"AUTHZ_ADDRESS is `{settings.address}`, which other machines reach, and nothing proves who"
            " calls; let callers prove who they are with AUTHZ_CALLERS_FILE (client certificates),"
            " AUTHZ_JWT_ISSUER (JWTs) or AUTHZ_ACCESS_TOKENS, or listen at 127.0.0.1 or a Unix socket, or"
            " set AUTHZ_ALLOW_UNAUTHENTICATED (`--allow-unauthenticated`) if a proxy decides who gets here",
        )


def warn_of_open_access(settings: Settings) -> None:
    """Log, loudly, that nobody has to prove who calls, or that others can read what proves it."""
    if (settings.jwt_issuer or settings.access_tokens) and not (
        settings.tls_key_file or is_local(settings.address)
    ):
        log.warning(
            "NO TLS: JWTs and access tokens cross the network for everybody to read; set"
            " AUTHZ_TLS_CERTIFICATE_FILE and AUTHZ_TLS_KEY_FILE, unless a mesh encrypts",
        )
    if not authenticates(settings):
        log.warning(
            "NO AUTHENTICATION: every caller may do everything; set AUTHZ_CALLERS_FILE, AUTHZ_JWT_ISSUER or"
            " AUTHZ_ACCESS_TOKENS",
        )


def authenticates(settings: Settings) -> bool:
    """Whether callers must prove who they are."""
    return bool(settings.callers_file or settings.jwt_issuer or settings.access_tokens)


def _require_complete(settings: Settings) -> None:
    """Raise `InvalidArgumentError` for a setting that lacks another one, or a file that cannot be used."""
    if settings.callers_file and not settings.tls_client_ca_file:
        raise _needs("AUTHZ_CALLERS_FILE", "AUTHZ_TLS_CLIENT_CA_FILE, the authority of the certificates")
    if settings.callers_file:
        _certificates(settings)
    _jwt_types(settings)
    accepted_algorithms(split_names(settings.jwt_algorithms))
    keys = (settings.jwt_keys_file, settings.jwt_jwks_url)
    if not settings.jwt_issuer:
        for name in ("jwt_audience", "jwt_keys_file", "jwt_jwks_url"):
            if getattr(settings, name):
                raise _needs(f"AUTHZ_{name.upper()}", "AUTHZ_JWT_ISSUER")
        return
    if not settings.jwt_audience:
        raise _needs("AUTHZ_JWT_ISSUER", "AUTHZ_JWT_AUDIENCE, or a JWT for another service would be accepted")
    if bool(keys[0]) is bool(keys[1]):
        raise _needs("AUTHZ_JWT_ISSUER", "either AUTHZ_JWT_KEYS_FILE or AUTHZ_JWT_JWKS_URL")
    if keys[1] and not keys[1].startswith("https://"):
        raise invalid(
            "AUTHZ_JWT_JWKS_URL", f"AUTHZ_JWT_JWKS_URL is `{keys[1]}`; it must begin with `https://`"
        )
    if keys[0]:
        from authz.access.keys import FileKeys

        FileKeys(keys[0])


def _jwt_types(settings: Settings) -> frozenset[str]:
    types = frozenset(name.lower() for name in split_names(settings.jwt_types))
    if not types:
        raise invalid("AUTHZ_JWT_TYPES", "AUTHZ_JWT_TYPES names no type; name one, such as JWT")
    return types


def _needs(name: str, what: str) -> InvalidArgumentError:
    return invalid(name, f"{name} needs {what}")


def _certificates(settings: Settings) -> Authenticator:
    from authz.access.certificates import CertificateAuthenticator

    return CertificateAuthenticator(settings.callers_file)


def _jwts(settings: Settings) -> tuple[Verifier, Callable[[], None]]:
    """What verifies JWTs, and what ends it."""
    from authz.access.json_web_tokens import JwtRules, JwtVerifier
    from authz.access.keys import AddressKeys, FileKeys

    rules = JwtRules(
        issuer=settings.jwt_issuer,
        audience=settings.jwt_audience,
        algorithms=accepted_algorithms(split_names(settings.jwt_algorithms)),
        types=_jwt_types(settings),
    )
    if settings.jwt_keys_file:
        return JwtVerifier(rules, FileKeys(settings.jwt_keys_file)), lambda: None
    keys = AddressKeys(settings.jwt_jwks_url)
    keys.start()
    return JwtVerifier(rules, keys), keys.close
