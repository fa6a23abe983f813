"""A server lets nobody in from other machines unasked, and says so when it lets in everybody on this one."""

from __future__ import annotations

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from authz.domain.errors import InvalidArgumentError
from authz.domain.instants import Instant
from authz.domain.ports import Snapshot
from authz.runtime.authentication import open_authentication, require_authentication
from authz.runtime.server import Server
from authz.runtime.settings import load_settings
from tests.forkserver import run
from tests.issuer import Issuer

JWT = {"jwt_issuer": "https://issuer.test", "jwt_audience": "authz"}


def no_state() -> tuple[Snapshot, Instant]:
    raise AssertionError("no call shows a token")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Files for settings that need one."""
    made = {name: tmp_path / name for name in ("keys", "callers", "pem")}
    made["keys"].write_bytes(Issuer().jwks())
    made["callers"].write_text("[uri]\n")
    made["pem"].write_text("")
    return {name: str(path) for name, path in made.items()}


@pytest.mark.parametrize(
    "address", ["127.0.0.1:1", "127.8.0.1:1", "[::1]:1", "localhost:1", "unix:/run/authz.sock"]
)
def test_on_an_address_of_this_machine_nobody_needs_to_prove_anything(address: str) -> None:
    require_authentication(load_settings({"address": address}, environ={}))


@pytest.mark.parametrize("address", ["0.0.0.0:1", "[::]:1", "10.0.0.7:1", "authz.internal:1"])
def test_on_any_other_address_the_server_refuses_unless_it_is_told_how_or_not_to(
    address: str, files: dict[str, str]
) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        require_authentication(load_settings({"address": address}, environ={}))
    for name in ("AUTHZ_CALLERS_FILE", "AUTHZ_JWT_ISSUER", "AUTHZ_ACCESS_TOKENS", "--allow-unauthenticated"):
        assert name in caught.value.message
    with_keys = {"address": address, **JWT, "jwt_keys_file": files["keys"]}
    require_authentication(load_settings(with_keys, environ={}))
    require_authentication(load_settings({"address": address, "access_tokens": True}, environ={}))
    require_authentication(load_settings({"address": address, "allow_unauthenticated": True}, environ={}))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"callers_file": "callers"}, "AUTHZ_TLS_CLIENT_CA_FILE"),
        ({"jwt_issuer": "https://issuer.test", "jwt_keys_file": "keys"}, "AUTHZ_JWT_AUDIENCE"),
        (JWT, "either AUTHZ_JWT_KEYS_FILE or AUTHZ_JWT_JWKS_URL"),
        (JWT | {"jwt_keys_file": "keys", "jwt_jwks_url": "https://issuer.test/jwks"}, "either"),
        (JWT | {"jwt_jwks_url": "http://issuer.test/jwks"}, "https://"),
        (JWT | {"jwt_keys_file": "keys", "jwt_algorithms": "HS256"}, "names `HS256`"),
        (JWT | {"jwt_keys_file": "keys", "jwt_algorithms": "none"}, "names `none`"),
        (JWT | {"jwt_keys_file": "keys", "jwt_algorithms": " , "}, "names no algorithm"),
        (JWT | {"jwt_keys_file": "pem"}, "cannot be used"),
        (JWT | {"jwt_keys_file": "keys", "allow_unauthenticated": True}, "unset one of them"),
        ({"access_tokens": True, "allow_unauthenticated": True}, "unset one of them"),
        (JWT | {"jwt_keys_file": "keys", "jwt_types": ","}, "names no type"),
        ({"jwt_types": ","}, "names no type"),
        ({"jwt_audience": "authz"}, "AUTHZ_JWT_AUDIENCE needs AUTHZ_JWT_ISSUER"),
        ({"jwt_algorithms": "HS256"}, "names `HS256`"),
        ({"jwt_keys_file": "keys"}, "AUTHZ_JWT_ISSUER"),
        ({"jwt_jwks_url": "https://issuer.test/jwks"}, "AUTHZ_JWT_ISSUER"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(
    given: dict[str, str | bool], told: str, files: dict[str, str]
) -> None:
    known = {name: files.get(str(value), value) for name, value in given.items()}
    settings = load_settings(known, environ={})
    with pytest.raises(InvalidArgumentError, match=told):
        open_authentication(settings, no_state)


@pytest.mark.parametrize(
    ("given", "warned"),
    [
        ({"address": "127.0.0.1:0"}, ["NO AUTHENTICATION"]),
        ({"address": "127.0.0.1:0", "access_tokens": True}, []),
        ({"address": "0.0.0.0:0", "access_tokens": True}, ["NO TLS"]),
    ],
)
async def test_a_server_that_lets_in_everybody_or_reads_open_tokens_says_so(
    sqlite_url: str, given: dict[str, str | bool], warned: list[str]
) -> None:
    settings = load_settings({**given, "database_url": sqlite_url}, environ={})
    with capture_logs() as lines:
        async with Server(settings):
            pass
    told = [line["event"].partition(":")[0] for line in lines if line["log_level"] == "warning"]
    assert [event for event in told if event.startswith("NO ")] == warned


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_command_refuses_to_start_and_says_what_to_set(sqlite_url: str, workers: str) -> None:
    ended = run("serve", "--address", "0.0.0.0:0", "--database", sqlite_url, "--workers", workers)
    assert ended.returncode == 2
    assert "AUTHZ_CALLERS_FILE" in ended.stderr
    assert "--allow-unauthenticated" in ended.stderr
