"""Keys from a JWKS address: read in the background, kept while it is away, and not forever."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from authz.access.json_web_tokens import JwtRules, JwtVerifier
from authz.access.keys import AddressKeys
from authz.domain.errors import ErrorReason, UnauthenticatedError, UnavailableError
from authz.telemetry.metrics import REGISTRY
from tests.api.in_process import Request
from tests.https import Address, https_address
from tests.issuer import AUDIENCE, ISSUER, Issuer, jwks_of
from tests.waiting import until


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Address]:
    monkeypatch.setattr("authz.access.keys._MIN_INTERVAL_S", 0.05)
    with https_address(tmp_path, monkeypatch) as made:
        yield made


ALGORITHM_IS_A_LIST = jwks_of(Issuer("k1")).replace(b'"use"', b'"alg": ["ES256"], "use"')


def ids(keys: AddressKeys) -> list[str | None]:
    return [key.id for key in keys.current()]


def test_keys_are_refreshed_when_a_jwt_names_an_unknown_one_and_kept_while_the_address_is_away(
    address: Address,
) -> None:
    address.content = jwks_of(Issuer("k1"))
    keys = AddressKeys(address.url, interval_s=3600, max_age_s=3600)
    keys.start()
    try:
        assert ids(keys) == ["k1"]
        address.content = jwks_of(Issuer("k1"), Issuer("k2"))
        keys.refresh_soon()
        until(lambda: ids(keys) == ["k1", "k2"])
        asked = address.gets
        address.status = 503
        keys.refresh_soon()
        until(lambda: address.gets > asked)
        assert ids(keys) == ["k1", "k2"]
        address.status, address.location = 302, address.url
        asked = address.gets
        keys.refresh_soon()
        until(lambda: address.gets > asked)
        assert address.gets == asked + 1  # it follows no redirect
        address.answer, asked = lambda file: file.write(b"hello\n"), address.gets
        keys.refresh_soon()
        until(lambda: address.gets > asked)
        address.answer, address.status, address.location = None, 200, ""
        address.content = jwks_of(Issuer("k3"))
        keys.refresh_soon()
        until(lambda: ids(keys) == ["k3"])
    finally:
        keys.close()


@pytest.mark.parametrize("kid", ["k2", None])
def test_a_jwt_of_a_new_key_is_accepted_soon_after_one_was_shown(address: Address, kid: str | None) -> None:
    address.content = jwks_of(Issuer("k1"))
    new = Issuer("k2")
    rules = JwtRules(
        issuer=ISSUER, audience=AUDIENCE, algorithms=frozenset(("ES256",)), types=frozenset(("at+jwt",))
    )
    keys = AddressKeys(address.url, interval_s=3600, max_age_s=3600)
    keys.start()
    try:
        verifier, token = JwtVerifier(rules, keys), new.jwt("notebooks", header={"kid": kid})
        address.content = jwks_of(new)
        with pytest.raises(UnauthenticatedError):
            verifier.verify(token, Request({}))
        until(lambda: ids(keys) == ["k2"])
        assert verifier.verify(token, Request({})).actor == "service:notebooks"
    finally:
        keys.close()


@pytest.mark.parametrize("content", [b'{"keys": []}', b'{"keys": [{"kty": "oct", "k": "AA"}, 7]}'])
def test_keys_that_the_issuer_withdraws_let_nobody_in(address: Address, content: bytes) -> None:
    address.content = jwks_of(Issuer("k1"))
    keys = AddressKeys(address.url, interval_s=3600, max_age_s=3600)
    keys.start()
    try:
        address.content, asked = b'{"keys": {}}', address.gets
        keys.refresh_soon()
        until(lambda: address.gets > asked)
        assert ids(keys) == ["k1"]  # it is no JWKS
        address.content = content
        keys.refresh_soon()
        with pytest.raises(UnavailableError) as caught:
            until(lambda: not keys.current())
        assert caught.value.reason is ErrorReason.CREDENTIALS_UNVERIFIABLE
        address.content = jwks_of(Issuer("k2"))
        until(lambda: has_keys(keys))
        assert ids(keys) == ["k2"]
    finally:
        keys.close()


def test_the_log_and_the_metrics_say_what_happens_to_the_keys_and_nothing_of_a_refresh_without_news(
    address: Address,
) -> None:
    def failures() -> float:
        return REGISTRY.get_sample_value("authz_reload_failures_total", {"kind": "keys"}) or 0

    def refresh(content: bytes, status: int = 200) -> None:
        address.content, address.status, asked = content, status, address.gets
        keys.refresh_soon()
        until(lambda: address.gets > asked)

    address.content, before = jwks_of(Issuer("k1")), failures()
    keys = AddressKeys(address.url, interval_s=3600, max_age_s=3600)
    with capture_logs() as logged:
        keys.start()
        refresh(address.content)
        refresh(b"", 503)
        refresh(b'{"keys": []}')
        until(lambda: failures() == before + 2)
        refresh(jwks_of(Issuer("k2")))
        until(lambda: len(logged) == 4)
        asked = address.gets
        time.sleep(0.3)
        assert address.gets == asked  # it asks when the next period is over
        keys.close()
        time.sleep(0.3)
        assert address.gets == asked
    assert [(line["log_level"], line["event"].partition(";")[0]) for line in logged] == [
        ("info", "keys of JWTs refreshed"),
        ("warning", "keys of JWTs not refreshed"),
        ("warning", "no JWT is accepted: the address has no usable key"),
        ("info", "keys of JWTs refreshed"),
    ]
    assert {line["address"] for line in logged} == {address.url}
    assert [line["ids"] for line in logged if "ids" in line] == [["k1"], ["k2"]]
    assert "503" in logged[1]["cause"]


def test_keys_that_are_too_old_let_nobody_in(address: Address) -> None:
    address.content = jwks_of(Issuer("k1"))
    keys = AddressKeys(address.url, interval_s=3600, max_age_s=0.3)
    keys.start()
    try:
        with pytest.raises(UnavailableError) as caught:
            until(lambda: not keys.current())
        assert caught.value.reason is ErrorReason.CREDENTIALS_UNVERIFIABLE
    finally:
        keys.close()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'{"keys": []}', b'{"keys": ' + b"[" * 5000, ALGORITHM_IS_A_LIST, b"x" * (2 << 20)],
    ids=len,
)
def test_a_server_starts_without_keys_and_accepts_no_jwt_until_the_address_gives_some(
    address: Address, content: bytes
) -> None:
    address.content = content
    keys = AddressKeys(address.url, interval_s=3600, max_age_s=3600)
    keys.start()
    try:
        with pytest.raises(UnavailableError):
            keys.current()
        address.content = jwks_of(Issuer("k1"))
        until(lambda: has_keys(keys))
        assert ids(keys) == ["k1"]
    finally:
        keys.close()


def has_keys(keys: AddressKeys) -> bool:
    """Whether there are some, as a call with a JWT finds out."""
    try:
        return bool(keys.current())
    except UnavailableError:
        return False
