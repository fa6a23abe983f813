"""The algorithms of JWTs that a server may be set to accept."""

from __future__ import annotations

from collections.abc import Iterable

from authz.domain.errors import malformed

OF_CURVES = {"secp256r1": {"ES256"}, "secp384r1": {"ES384"}, "secp521r1": {"ES512"}}
OF_RSA = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
OF_ED25519 = {"EdDSA"}
ALGORITHMS = frozenset().union(OF_RSA, *OF_CURVES.values(), OF_ED25519)
"""None of them is symmetric: a public key can never be a secret."""


def accepted_algorithms(names: Iterable[str]) -> frozenset[str]:
    """The algorithms of a setting. Raises `InvalidArgumentError` for one that no server accepts."""
    found = frozenset(names)
    for name in sorted(found - ALGORITHMS):
        raise malformed(
            "AUTHZ_JWT_ALGORITHMS", f"names `{name}`; it may name {', '.join(sorted(ALGORITHMS))}"
        )
    if not found:
        raise malformed("AUTHZ_JWT_ALGORITHMS", "names no algorithm; name one, such as ES256")
    return found
