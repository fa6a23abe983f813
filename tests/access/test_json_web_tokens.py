"""JWTs: what a valid one proves, and everything about one that is refused. Source: RFC 8725."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from authz.access.algorithms import ALGORITHMS
from authz.access.bearer import BearerAuthenticator
from authz.access.json_web_tokens import JwtRules, JwtVerifier
from authz.access.keys import FileKeys, parse_keys
from authz.access.principal import Principal
from authz.domain.errors import AuthzError, ErrorReason, InvalidArgumentError, UnauthenticatedError
from authz.domain.ids import Subject, SubjectType
from tests.access.certificates import certificate
from tests.api.in_process import Request
from tests.issuer import AUDIENCE, DAY_S, ISSUER, Issuer, jwks_of, unsigned
from tests.waiting import until

OURS = Issuer()
NOTEBOOKS = Principal(Subject(SubjectType.SERVICE, "notebooks"))
RULES = JwtRules(
    issuer=ISSUER,
    audience=AUDIENCE,
    algorithms=frozenset(("ES256", "RS256")),
    types=frozenset(("at+jwt",)),
)


KEYS: dict[str, ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey] = {
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "ES512": ec.generate_private_key(ec.SECP521R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}
"""Of the algorithms that are not for keys of RSA."""


class Clock:
    """The time, to be moved."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


def authenticator_of(keys: Path, clock: Clock | None = None) -> BearerAuthenticator:
    return BearerAuthenticator(jwts=JwtVerifier(RULES, FileKeys(str(keys)), clock=clock or Clock()))


def file_of(folder: Path, content: bytes) -> Path:
    path = folder / "keys"
    path.write_bytes(content)
    return path


def shown(token: str, pem: str = "") -> Request:
    return Request({"authorization": f"Bearer {token}"}, pem)


@pytest.mark.parametrize("form", ["pem", "jwks"])
def test_a_jwt_proves_the_service_that_its_sub_names(tmp_path: Path, form: str) -> None:
    authenticator = authenticator_of(file_of(tmp_path, OURS.pem() if form == "pem" else OURS.jwks()))
    assert authenticator.authenticate(shown(OURS.jwt("notebooks"))) == NOTEBOOKS
    assert (
        authenticator.authenticate(shown(OURS.jwt("service:notebooks", aud=["other", AUDIENCE]))) == NOTEBOOKS
    )
    assert authenticator.authenticate(shown(OURS.jwt("notebooks", header={"kid": None}))) == NOTEBOOKS
    assert (
        authenticator.authenticate(Request({"authorization": f"bearer {OURS.jwt('notebooks')}"})) == NOTEBOOKS
    )
    for carries_none in ({}, {"authorization": ""}):
        assert authenticator.authenticate(Request(carries_none)) is None


def test_a_jwt_without_a_key_id_may_be_signed_with_any_of_the_keys(tmp_path: Path) -> None:
    other = Issuer("k2")
    authenticator = authenticator_of(file_of(tmp_path, jwks_of(OURS, other)))
    for issuer in (OURS, other):
        assert authenticator.authenticate(shown(issuer.jwt("notebooks", header={"kid": None}))) == NOTEBOOKS
    with pytest.raises(UnauthenticatedError):
        authenticator.authenticate(shown(Issuer("k3").jwt("notebooks", header={"kid": None})))


NOW = int(time.time())
CLAIMS = {"iss": ISSUER, "aud": AUDIENCE, "sub": "notebooks", "exp": NOW + DAY_S}
BAD: dict[str, str] = {
    "no signature": unsigned(CLAIMS, {"alg": "none", "typ": "at+jwt"}),
    "no signature, in other letters": unsigned(CLAIMS, {"alg": "nOnE", "typ": "at+jwt"}),
    "an algorithm that is not accepted": unsigned(CLAIMS, {"alg": "ES384", "typ": "at+jwt"}) + "x",
    "an algorithm that its key is not for": unsigned(CLAIMS, {"alg": "RS256", "typ": "at+jwt"}) + "x",
    "another issuer's key": Issuer().jwt("notebooks"),
    "an unknown key id": OURS.jwt("notebooks", header={"kid": "k2"}),
    "another issuer": OURS.jwt("notebooks", iss="https://other.test"),
    "no issuer": OURS.jwt("notebooks", iss=None),
    "another audience": OURS.jwt("notebooks", aud="other"),
    "no audience": OURS.jwt("notebooks", aud=None),
    "no end": OURS.jwt("notebooks", exp=None),
    "an end that is past": OURS.jwt("notebooks", exp=NOW - 60),
    "an end that is no number": OURS.jwt("notebooks", exp="soon"),
    "a start that is to come": OURS.jwt("notebooks", nbf=NOW + DAY_S),
    "another type": OURS.jwt("notebooks", header={"typ": "id+jwt"}),
    "no type": OURS.jwt("notebooks", header={"typ": None}),
    "an extension that is critical": OURS.jwt("notebooks", header={"crit": ["x"], "x": 1}),
    "no subject": OURS.jwt("x", sub=None),
    "a subject that is no text": OURS.jwt("x", sub=7),
    "a person": OURS.jwt("user:maya"),
    "an id that is none": OURS.jwt("two words"),
    "a binding that is unknown": OURS.jwt("notebooks", cnf={"jkt": "x"}),
    "a binding to nothing": OURS.jwt("notebooks", cnf={}),
    "a binding that is no object": OURS.jwt("notebooks", cnf="x"),
    "a binding to a certificate without a thumbprint": OURS.jwt("notebooks", cnf={"x5t#S256": ""}),
    "a binding to a certificate that is not shown": OURS.jwt("notebooks", cnf={"x5t#S256": "x"}),
    "no JWT": "abc",
    "nothing": "",
}


@pytest.mark.parametrize("name", BAD)
def test_a_jwt_that_proves_nothing_is_refused_and_never_quoted(tmp_path: Path, name: str) -> None:
    authenticator = authenticator_of(file_of(tmp_path, OURS.jwks()))
    with pytest.raises(UnauthenticatedError) as caught:
        authenticator.authenticate(shown(BAD[name]))
    assert caught.value.reason is ErrorReason.CREDENTIAL_INVALID
    assert not BAD[name] or BAD[name] not in caught.value.message


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("no signature", "AUTHZ_JWT_ALGORITHMS names; let its issuer use one of them"),
        ("an unknown key id", "if its issuer has a new key, try again in some seconds"),
        ("another issuer", "get one from the issuer that AUTHZ_JWT_ISSUER names"),
        ("another audience", "get one whose `aud` is what AUTHZ_JWT_AUDIENCE names"),
        ("an end that is past", "get a new one"),
        ("a start that is to come", "correct the clock that is wrong"),
        ("another type", "AUTHZ_JWT_TYPES names; send an access token of the issuer"),
        ("an extension that is critical", "get a new one"),
        ("a person", "get one for the program that calls"),
        ("a binding that is unknown", "get one that is bound to a certificate (`x5t#S256`), or to nothing"),
        ("a binding to a certificate that is not shown", "connect with that certificate"),
    ],
)
def test_what_is_told_of_a_jwt_ends_in_what_to_do(tmp_path: Path, name: str, remedy: str) -> None:
    authenticator = authenticator_of(file_of(tmp_path, OURS.jwks()))
    with pytest.raises(UnauthenticatedError) as caught:
        authenticator.authenticate(shown(BAD[name]))
    assert caught.value.message.endswith(remedy)


@pytest.mark.parametrize("name", ["alg", "typ", "kid", "crit", "b64", "jwk", "jku", "x5u"])
def test_a_header_with_a_value_of_any_type_is_refused(tmp_path: Path, name: str) -> None:
    authenticator = authenticator_of(file_of(tmp_path, OURS.jwks()))
    values: list[object] = [None, True, 5, 1.5, "", "x", [], ["ES256"], {}, {"a": [{}]}]
    for value in values:
        header = {"alg": "ES256", "typ": "at+jwt", name: value}
        with pytest.raises(UnauthenticatedError):
            authenticator.authenticate(shown(unsigned(CLAIMS, header) + "eA"))


@pytest.mark.parametrize(
    "header", ["[" * 9000, '{"a":' * 2000 + "1" + "}" * 2000, "9" * 9000, "null", "\xff"]
)
def test_a_header_that_is_no_object_is_refused(tmp_path: Path, header: str) -> None:
    authenticator = authenticator_of(file_of(tmp_path, OURS.jwks()))
    encoded = base64.urlsafe_b64encode(header.encode("latin-1")).rstrip(b"=").decode()
    with pytest.raises(UnauthenticatedError):
        authenticator.authenticate(shown(f"{encoded}.e30.eA"))


def test_an_end_in_quotes_is_an_end(tmp_path: Path) -> None:
    authenticator = authenticator_of(file_of(tmp_path, OURS.jwks()))
    assert authenticator.authenticate(shown(OURS.jwt("notebooks", exp=str(NOW + DAY_S)))) == NOTEBOOKS


def test_a_public_key_is_never_taken_for_a_secret(tmp_path: Path) -> None:
    claims = base64.urlsafe_b64encode(json.dumps(CLAIMS).encode()).rstrip(b"=")
    header = base64.urlsafe_b64encode(b'{"alg":"HS256","typ":"at+jwt"}').rstrip(b"=")
    signature = hashlib.sha256(OURS.pem() + header + b"." + claims).digest()
    forged = b".".join((header, claims, base64.urlsafe_b64encode(signature).rstrip(b"="))).decode()
    with pytest.raises(UnauthenticatedError, match="algorithm"):
        authenticator_of(file_of(tmp_path, OURS.pem())).authenticate(shown(forged))


def test_a_key_verifies_only_by_the_algorithm_that_its_set_names(tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, 2048)
    token = jwt.encode(CLAIMS, key, algorithm="RS256", headers={"typ": "at+jwt"})

    def keys_for(algorithm: str) -> Path:
        jwk = RSAAlgorithm.to_jwk(key.public_key(), as_dict=True) | {"alg": algorithm}
        return file_of(tmp_path, json.dumps({"keys": [jwk]}).encode())

    assert authenticator_of(keys_for("RS256")).authenticate(shown(token)) == NOTEBOOKS
    with pytest.raises(UnauthenticatedError, match="a key that this server does not know"):
        authenticator_of(keys_for("PS256")).authenticate(shown(token))


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_a_key_verifies_by_each_algorithm_that_a_server_may_accept(tmp_path: Path, algorithm: str) -> None:
    key = KEYS.get(algorithm) or rsa.generate_private_key(65537, 2048)
    rules = msgspec.structs.replace(RULES, algorithms=frozenset((algorithm,)))
    token = jwt.encode(CLAIMS, key, algorithm=algorithm, headers={"typ": "at+jwt"})
    verifier = JwtVerifier(rules, FileKeys(str(file_of(tmp_path, pem_of(key.public_key())))))
    assert verifier.verify(token, Request({})) == NOTEBOOKS


def test_a_key_for_encryption_verifies_nothing(tmp_path: Path) -> None:
    other = Issuer("k2")
    keys = json.loads(jwks_of(OURS, other))
    keys["keys"][0]["use"] = "enc"
    authenticator = authenticator_of(file_of(tmp_path, json.dumps(keys).encode()))
    assert authenticator.authenticate(shown(other.jwt("notebooks"))) == NOTEBOOKS
    with pytest.raises(UnauthenticatedError, match="a key that this server does not know"):
        authenticator.authenticate(shown(OURS.jwt("notebooks")))


def test_a_clock_that_is_less_than_five_seconds_off_refuses_no_jwt(tmp_path: Path) -> None:
    keys, ends_at_s = FileKeys(str(file_of(tmp_path, OURS.jwks()))), NOW + DAY_S
    times = iter((NOW, ends_at_s + 4.9, ends_at_s + 5))
    authenticator = BearerAuthenticator(jwts=JwtVerifier(RULES, keys, clock=lambda: next(times)))
    transport = shown(OURS.jwt("notebooks", nbf=int(time.time()) + 4, exp=ends_at_s))
    assert authenticator.authenticate(transport) == NOTEBOOKS
    assert authenticator.authenticate(transport) == NOTEBOOKS
    with pytest.raises(UnauthenticatedError, match="has ended"):
        authenticator.authenticate(transport)


def test_a_jwt_that_was_verified_ends_all_the_same(tmp_path: Path) -> None:
    clock = Clock()
    authenticator = authenticator_of(file_of(tmp_path, OURS.jwks()), clock)
    token = OURS.jwt("notebooks")
    assert authenticator.authenticate(shown(token)) == NOTEBOOKS
    clock.ahead_s = 2 * DAY_S
    with pytest.raises(UnauthenticatedError, match="has ended"):
        authenticator.authenticate(shown(token))


def test_a_jwt_that_is_bound_is_accepted_with_its_certificate_only(tmp_path: Path) -> None:
    own, other = certificate(uris=["spiffe://qalam/notebooks"]), certificate(uris=["spiffe://qalam/other"])
    token = OURS.jwt("notebooks", cnf={"x5t#S256": own.thumbprint})
    authenticator = authenticator_of(file_of(tmp_path, OURS.jwks()))
    for _ in range(2):  # the second time it is known
        assert authenticator.authenticate(shown(token, own.pem)) == NOTEBOOKS
        for pem in (other.pem, ""):
            with pytest.raises(UnauthenticatedError, match="bound to a client certificate"):
                authenticator.authenticate(shown(token, pem))
    for bound_to in ({"x5t#S256": own.thumbprint, "jkt": "x"}, {"x5t#S256": 7}):
        with pytest.raises(UnauthenticatedError, match="in a way that this server cannot verify"):
            authenticator.authenticate(shown(OURS.jwt("notebooks", cnf=bound_to), own.pem))


def test_keys_change_with_their_file_and_nobody_enters_while_it_cannot_be_read(tmp_path: Path) -> None:
    file, new = file_of(tmp_path, OURS.jwks()), Issuer("k2")
    authenticator = authenticator_of(file)
    tokens = {"old": OURS.jwt("notebooks"), "new": new.jwt("notebooks")}

    def accepted() -> set[str]:
        return {name for name, token in tokens.items() if outcome(authenticator, token) == NOTEBOOKS}

    def accepts_only(names: set[str]) -> bool:
        return accepted() == names

    assert accepted() == {"old"}
    for content, expected in ((jwks_of(OURS, new), {"old", "new"}), (jwks_of(new), {"new"}), (b"{", set())):
        file.write_bytes(content)
        until(partial(accepts_only, expected))
    failure = outcome(authenticator, tokens["new"])
    assert isinstance(failure, AuthzError)
    assert failure.reason is ErrorReason.CREDENTIALS_UNVERIFIABLE
    file.write_bytes(jwks_of(OURS))
    until(lambda: accepted() == {"old"})


def outcome(authenticator: BearerAuthenticator, token: str) -> Any:
    """What a JWT proves, or the error."""
    try:
        return authenticator.authenticate(shown(token))
    except AuthzError as error:
        return error


def pem_of(key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey) -> bytes:
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


NONE_OF_THEM = "has no public key for any of ES256, ES384, "


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "is neither PEM nor a JWKS"),
        (b"{}", "is neither PEM nor a JWKS"),
        (b'{"keys": []}', NONE_OF_THEM),
        (b'{"keys": [{"kty": "oct", "k": "AAAA"}, {"kty": "oct"}]}', NONE_OF_THEM),
        (OURS.jwks().replace(b'"sig"', b'"enc"'), NONE_OF_THEM),
        (OURS.jwks().replace(b'"use"', b'"alg": "ES384", "use"'), NONE_OF_THEM),
        (pem_of(rsa.generate_private_key(65537, 1024).public_key()), NONE_OF_THEM),  # noqa: S505  too short
        (pem_of(ec.generate_private_key(ec.SECP256K1()).public_key()), NONE_OF_THEM),
        (b"-----BEGIN PUBLIC KEY-----\nx", "has a block `PUBLIC KEY` that is no public key"),
    ],
)
def test_a_file_without_a_public_key_is_refused(content: bytes, told: str) -> None:
    with pytest.raises(InvalidArgumentError, match=told):
        parse_keys(content)


@pytest.mark.parametrize(
    "before", [b"", b"\xef\xbb\xbf", b"Bag Attributes\n  friendlyName: issuer\n", b"# {\r\n"]
)
def test_a_key_in_pem_may_have_text_before_it(before: bytes) -> None:
    """As `openssl` writes it. Source: RFC 7468, section 2."""
    assert [key.algorithms for key in parse_keys(before + OURS.pem())] == [frozenset({"ES256"})]


UNREADABLE = [
    {"alg": "none"},
    {"alg": ["ES256"]},
    {"x": 7},
    {"x": "x"},
    {"x": "_" * 43},
    {"crv": "P-257"},
    {"kty": 7},
]


@pytest.mark.parametrize("fields", UNREADABLE, ids=str)
def test_a_key_that_cannot_be_read_keeps_none_of_its_set_from_being_used(
    tmp_path: Path, fields: dict[str, object]
) -> None:
    keys = json.loads(jwks_of(Issuer("k0"), OURS))
    keys["keys"][0].update(fields)
    authenticator = authenticator_of(file_of(tmp_path, json.dumps(keys).encode()))
    assert authenticator.authenticate(shown(OURS.jwt("notebooks"))) == NOTEBOOKS


@pytest.mark.parametrize("form", ["certificate", "private key", "key id is a number"])
def test_a_key_is_taken_from_all_that_has_one(tmp_path: Path, form: str) -> None:
    if form == "certificate":
        content = certificate(key=OURS.key).pem.encode()
    else:
        more = {"kid": 7} if form == "key id is a number" else {}
        jwk = ECAlgorithm.to_jwk(OURS.key, as_dict=True) | more
        content = json.dumps({"keys": [jwk]}).encode()
    authenticator = authenticator_of(file_of(tmp_path, content))
    assert authenticator.authenticate(shown(OURS.jwt("notebooks"))) == NOTEBOOKS


@pytest.mark.parametrize(("header", "told"), [("Basic abc", "another scheme"), ("Bearer not-a-jwt", "JWT")])
def test_another_kind_of_credential_is_refused(tmp_path: Path, header: str, told: str) -> None:
    authenticator = authenticator_of(file_of(tmp_path, OURS.jwks()))
    with pytest.raises(UnauthenticatedError, match=told):
        authenticator.authenticate(Request({"authorization": header}))
