"""`authz doctor` names what is wrong or unsafe, and finds nothing where nothing is."""

from __future__ import annotations

import re
import shlex
import shutil
import stat
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from sqlalchemy import update

from authz.audit.publisher import CLAIM_US
from authz.client.access_tokens import make_access_token
from authz.domain.errors import InvalidArgumentError
from authz.domain.ids import parse_subject
from authz.domain.instants import US_PER_S, to_datetime
from authz.domain.mutations import Mutation, Operation, WriteRequest
from authz.domain.origin import Origin
from authz.domain.proofs import SignedCheckpoint
from authz.runtime.compose import system_clock
from authz.runtime.doctor import findings
from authz.runtime.preflight import require_startable
from authz.runtime.settings import Settings, load_settings
from authz.store import tables
from authz.store.database.engine import open_engine, write_transaction
from tests.callers import directory_of, grant
from tests.cli.commands import run
from tests.https import https_address
from tests.issuer import Issuer
from tests.runtime.test_mutual_tls import certify
from tests.runtime.test_private import without_privileges
from tests.serving import find_free_port, over_grpc, serving
from tests.store.directory import open_with
from tests.waiting import until

ISSUER = Issuer()
needs_openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")


def doctor(url: str, **settings: str) -> tuple[int, str]:
    """The exit code and what is printed."""
    done = run("doctor", AUTHZ_DATABASE_URL=url, **{f"AUTHZ_{k.upper()}": v for k, v in settings.items()})
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def private_url(sqlite_url: str, tmp_path: Path) -> str:
    """A database that only its owner may read, with somebody who may do each thing that must be done."""
    grant(sqlite_url, {"service:ops": "operator", "user:root": "platform_admin"})
    (tmp_path / "authz.db").chmod(0o600)
    return sqlite_url


def test_nothing_is_found_at_a_server_that_is_as_it_should_be(private_url: str, tmp_path: Path) -> None:
    exported = f"127.0.0.1:{find_free_port()}"
    settings = {"metrics_address": exported, "transport": "grpc", **ISSUER.settings(tmp_path)}
    (tmp_path / "keys.json").chmod(0o600)
    with serving(private_url, **{f"AUTHZ_{k.upper()}": v for k, v in settings.items()}):
        assert doctor(private_url, **settings) == (0, "nothing is wrong or unsafe\n")
    code, told = doctor(private_url, **settings)
    assert (code, f"wrong: no server answers at {exported}/livez" in told) == (1, True)


@pytest.mark.parametrize(
    "url", ["postgresql://authz:secret@127.0.0.1:1/x", "postgresql:///x?password=secret"]
)
def test_a_password_in_the_url_of_the_database_is_unsafe_and_is_not_printed(url: str) -> None:
    code, told = doctor(url)
    assert code == 1
    assert "unsafe: AUTHZ_DATABASE_URL has the password" in told
    assert "secret" not in told
    assert "has the password" not in doctor("postgresql://authz@127.0.0.1:1/x")[1]


def test_an_open_address_and_tokens_in_plain_are_unsafe(private_url: str, tmp_path: Path) -> None:
    code, told = doctor(private_url, address="0.0.0.0:1", allow_unauthenticated="true")
    assert code == 1
    assert "unsafe: every caller that reaches 0.0.0.0:1 may do everything" in told
    code, told = doctor(private_url, address="0.0.0.0:1", **ISSUER.settings(tmp_path))
    assert code == 1
    assert "unsafe: JWTs and access tokens cross the network" in told
    code, told = doctor(private_url, address="0.0.0.0:1")
    assert code == 1
    assert "wrong: AUTHZ_ADDRESS is `0.0.0.0:1`" in told
    code, told = doctor(private_url)
    assert (code, "note: every caller that reaches 127.0.0.1" in told) == (0, True)


def readable(folder: Path) -> dict[str, str]:
    (folder / "authz.db").chmod(0o644)
    return {}


def writable(folder: Path) -> dict[str, str]:
    given = ISSUER.settings(folder)
    (folder / "keys.json").chmod(0o666)
    return given


def of_nobody(folder: Path) -> dict[str, str]:
    (folder / "replica").mkdir(0o700)
    return {"replica_dir": str(folder / "replica")}


def keyless(folder: Path) -> dict[str, str]:
    file = folder / "none.json"
    file.write_text("{}")
    return ISSUER.settings(folder) | {"jwt_keys_file": str(file)}


def one_address(_folder: Path) -> dict[str, str]:
    return {"address": "127.0.0.1:1", "metrics_address": "127.0.0.1:1"}


def unknown_type(_folder: Path) -> dict[str, str]:
    return {"inline_types": "mesage"}


def misspelt(folder: Path) -> dict[str, str]:
    file = folder / "limits.toml"
    file.write_text("[each.chekcs]\nper_second = 1\n")
    return {"limits_file": str(file)}


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (keyless, "AUTHZ_JWT_KEYS_FILE names"),
        (one_address, "AUTHZ_METRICS_ADDRESS is `127.0.0.1:1`, as is AUTHZ_ADDRESS"),
        (unknown_type, "did you mean `message`?"),
        (misspelt, "each.chekcs is no kind of call; write one of checks"),
        (readable, "unsafe: other users may use"),
        (writable, "unsafe: other users may write"),
        (of_nobody, "holds no replica"),
    ],
)
def test_files_that_are_not_as_they_should_be_are_named(
    private_url: str, tmp_path: Path, spoil: Callable[[Path], dict[str, str]], found: str
) -> None:
    settings = spoil(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    code, told = doctor(private_url, **settings)
    assert (code, found in told) == (1, True), told
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


@needs_openssl
def test_a_certificate_that_ends_soon_or_does_not_fit_its_key_is_named(
    private_url: str, tmp_path: Path
) -> None:
    chain, key = certify(tmp_path, "localhost")  # for two days
    ends_at = x509.load_pem_x509_certificate(chain.read_bytes()).not_valid_after_utc
    files = {"tls_certificate_file": str(chain), "tls_key_file": str(key)}
    code, told = doctor(private_url, **files)
    assert (code, f"unsafe: a certificate in {chain} ends on {ends_at.date()};" in told) == (1, True), told
    _, other = certify(tmp_path, "other")
    code, told = doctor(private_url, **files | {"tls_key_file": str(other)})
    assert (code, "wrong: " in told and "AUTHZ_TLS_CERTIFICATE_FILE" in told) == (1, True), told


def test_who_is_missing_and_which_tokens_end_is_noted(sqlite_url: str, tmp_path: Path) -> None:
    in_three_days = system_clock() + 3 * 86_400_000_000
    _, record = make_access_token(parse_subject("service:x"), ends_at=in_three_days)
    with directory_of(sqlite_url) as directory:
        directory.write(WriteRequest(mutations=(Mutation(Operation.CREATE, record),), origin=Origin("test")))
    (tmp_path / "authz.db").chmod(0o600)
    code, told = doctor(sqlite_url, access_tokens="true")
    assert code == 0, told
    assert "note: nobody may edit the policy" in told
    assert "note: no caller may let others in" in told
    assert f"note: access token {record.id} of service:x ends on {to_datetime(in_three_days).date()};" in told


def test_the_tokens_that_have_ended_are_counted(sqlite_url: str, tmp_path: Path) -> None:
    days_ago = [system_clock() - days * 86_400_000_000 for days in (3, 1, 2)]
    made = [make_access_token(parse_subject("service:x"), ends_at=2 * each)[1] for each in days_ago]
    records = [msgspec.structs.replace(each, ends_at=each.ends_at // 2) for each in made]
    with directory_of(sqlite_url) as directory:
        created = tuple(Mutation(Operation.CREATE, each) for each in records)
        directory.write(WriteRequest(mutations=created, origin=Origin("test")))
    (tmp_path / "authz.db").chmod(0o600)
    code, told = doctor(sqlite_url, access_tokens="true")
    last = f"{records[1].id} of service:x, on {to_datetime(days_ago[1]).date()}"
    assert code == 0, told
    assert [line for line in told.splitlines() if "access token" in line] == [
        f"note: 3 access tokens have ended, the last one, {last}; `authz token list` shows them, and `authz"
        " token revoke` removes one"
    ]


def test_a_database_that_cannot_be_used_is_wrong_and_nothing_is_made(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'none.db'}"
    code, told = doctor(url)
    assert (code, "note: there is no database" in told) == (0, True), told
    assert not [*tmp_path.iterdir()]
    code, told = doctor("postgresql://nobody@127.0.0.1:1/none")
    assert (code, "wrong: " in told) == (1, True), told
    assert doctor(url, max_writes="none")[0] == 2


def test_the_commands_that_it_prints_take_the_files_from_other_users(
    private_url: str, tmp_path: Path
) -> None:
    folder = tmp_path / "of the school"
    folder.mkdir()
    limits, key = folder / "limits.toml", folder / "password"
    for file, mode in ((limits, 0o622), (key, 0o604)):
        file.touch()
        file.chmod(mode)
    given = {"limits_file": str(limits), "database_password_file": str(key)}
    told = [line for line in doctor(private_url, **given)[1].splitlines() if line.startswith("unsafe: other")]
    assert len(told) == 2, told
    for line in told:
        subprocess.run(shlex.split(line.rpartition("run `")[2].removesuffix("`")), check=True)
    assert [stat.S_IMODE(file.stat().st_mode) for file in (limits, key)] == [0o600, 0o600]


def test_limits_that_hold_nobody_or_less_than_they_say_are_noted(private_url: str, tmp_path: Path) -> None:
    file = tmp_path / "limits.toml"
    file.write_text('[callers."service:osp".writes]\nper_second = 5\n')
    file.chmod(0o622)
    given = {**ISSUER.settings(tmp_path), "limits_file": str(file), "workers": "4"}
    (tmp_path / "keys.json").chmod(0o600)
    code, told = doctor(private_url, **given)
    assert (code, f"unsafe: other users may write {file}, and so lift every limit" in told) == (1, True), told
    file.chmod(0o600)
    code, told = doctor(private_url, **given)
    assert code == 0, told
    assert "note: each of the 4 workers counts for itself" in told
    assert f"note: {file} has limits of `service:osp`, which has no role" in told


def signing(url: str, settings: dict[str, str]) -> AbstractContextManager[object]:
    """A server that signs."""
    return serving(url, **{f"AUTHZ_{name.upper()}": value for name, value in settings.items()})


def newest(url: str) -> SignedCheckpoint:
    """The newest checkpoint."""
    with closing(open_with(url)) as store:
        return store.checkpoints.newest()


@over_grpc
def test_a_history_that_nobody_signs_or_publishes_is_found(private_url: str, tmp_path: Path) -> None:
    _, told = doctor(private_url, address="0.0.0.0:1", allow_unauthenticated="true")
    assert "note: nobody can find out whether the change log was rewritten" in told
    key = tmp_path / "key"
    run("audit", "keygen", "example.org/authz", key)
    code, told = doctor(private_url, checkpoint_key_file=str(key))
    assert (code, "note: signed checkpoints stay in the database" in told) == (1, True)
    assert "wrong: the newest checkpoint signs 0 of" in told
    public = {"checkpoint_key_file": str(key), "checkpoint_interval_s": "1"}
    public["checkpoint_publish"] = "https://127.0.0.1:1/"  # where nobody listens
    with signing(private_url, public):
        until(lambda: newest(private_url).size, "nothing is signed")
        code, told = doctor(private_url, **public)
        assert (
            code,
            "wrong: the checkpoint of 2 revisions is not published to `https://127.0.0.1:1/`" in told,
        ) == (
            1,
            True,
        ), told
        # Killed while it publishes, it would keep the next server from that for a minute.
        until(lambda: newest(private_url).next_at < system_clock() + CLAIM_US / 2, "it does not end")
    public["checkpoint_publish"] = f"file:{tmp_path / 'checkpoint'}"
    with signing(private_url, public):
        until(lambda: newest(private_url).published_to, "nothing is published", timeout_s=120)
    assert (tmp_path / "checkpoint").read_text() == newest(private_url).note
    code, told = doctor(private_url, **public)
    assert (code, "checkpoint" in told) == (0, False)
    key.chmod(0o644)
    code, told = doctor(private_url, **public)
    assert (code, f"unsafe: other users may use {key}; run `chmod go= {key}`" in told) == (1, True)


def test_a_clock_behind_the_newest_revision_is_found(private_url: str) -> None:
    assert "wrong: the clock" not in doctor(private_url)[1]
    engine = open_engine(private_url)
    with write_transaction(engine) as connection:
        connection.execute(update(tables.revisions).values(committed_at=system_clock() + 3_600 * US_PER_S))
    engine.dispose()
    code, told = doctor(private_url)
    found = re.search(r"wrong: the clock of this machine is (\d+) s behind the newest revision", told)
    assert code == 1
    assert found is not None
    assert 3_000 < int(found[1]) <= 3_600


def test_data_that_is_older_than_its_period_is_found(private_url: str) -> None:
    assert "retention period" not in doctor(private_url)[1]
    engine = open_engine(private_url)
    with write_transaction(engine) as connection:
        connection.execute(update(tables.revisions).values(committed_at=0))
    engine.dispose()
    assert "note: some data is older than its retention period" in doctor(private_url)[1]


def test_a_database_that_nobody_can_open_is_a_finding_among_the_others(tmp_path: Path) -> None:
    shut, limits = tmp_path / "shut", tmp_path / "limits.toml"
    shut.mkdir(mode=0)
    limits.touch()
    limits.chmod(0o666)
    with without_privileges():
        told = [doctor(f"sqlite:///{shut}/authz.db", address="0.0.0.0:1")]
    shut.chmod(0o700)
    for url in (f"sqlite:///{tmp_path}/none/authz.db", "mysql://there/authz"):
        told.append(doctor(url, address="0.0.0.0:1", limits_file=str(limits)))
        assert f"unsafe: other users may write {limits}" in told[-1][1]
    for code, text in told:
        assert (code, text.count("wrong: the database URL ")) == (1, 1)
        assert "unsafe: questions cross the network" in text
        assert "no running server was asked" in text


def test_an_issuer_without_keys_is_wrong(
    sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with https_address(tmp_path, monkeypatch) as address:
        settings = Settings(database_url=sqlite_url, jwt_jwks_url=address.url)

        def told() -> list[str]:
            return [each.text for each in findings(settings) if "AUTHZ_JWT_JWKS_URL gives" in each.text]

        address.content = ISSUER.jwks()
        assert told() == []
        for content in (b'{"keys": []}', b"<html>"):
            address.content = content
            assert len(told()) == 1
        address.status = 503
        assert len(told()) == 1


FILES = [
    "tls_certificate_file",
    "tls_key_file",
    "tls_client_ca_file",
    "database_password_file",
    "callers_file",
    "jwt_keys_file",
    "limits_file",
    "checkpoint_key_file",
]


@needs_openssl
def test_each_file_that_cannot_be_read_is_told_once_and_the_rest_is_looked_at(
    private_url: str, tmp_path: Path
) -> None:
    given = {name: str(tmp_path / name) for name in FILES}
    given |= {"jwt_issuer": "https://issuer.test", "jwt_audience": "authz", "address": "0.0.0.0:1"}
    code, told = doctor(private_url, **given)
    assert code == 1
    for name in FILES:
        assert told.count(str(tmp_path / name)) == 1
        wrong = (
            f"wrong: AUTHZ_{name.upper()} names `{tmp_path / name}`, which is no file that this user may read"
        )
        assert wrong in told
    shut = tmp_path / "tls_key_file"
    shut.touch(mode=0)
    certificate, _ = certify(tmp_path, "server")
    with without_privileges():
        code, told = doctor(
            f"sqlite:///{tmp_path}/none/authz.db",
            tls_certificate_file=str(certificate),
            tls_key_file=str(shut),
            address="0.0.0.0:1",
        )
    assert (code, told.count(str(shut))) == (1, 1)
    assert "wrong: the database URL" in told and "no running server was asked" in told


@pytest.mark.parametrize("name", FILES)
def test_a_server_does_not_start_without_a_file(name: str, tmp_path: Path) -> None:
    missing, other = tmp_path / "missing", tmp_path / "other"
    other.touch()
    pair = {each: str(other) for each in FILES if each.startswith("tls_")} if name.startswith("tls_") else {}
    with pytest.raises(InvalidArgumentError, match=f"AUTHZ_{name.upper()} names `{missing}`"):
        require_startable(load_settings(pair | {name: str(missing)}, environ={}))


def test_commands_of_the_database_need_no_file_of_a_server(sqlite_url: str, tmp_path: Path) -> None:
    missing = {f"AUTHZ_{name.upper()}": "/none" for name in FILES}
    for command in (("migrate",), ("backup", tmp_path / "b.db")):
        done = run(*command, "--database", sqlite_url, **missing)
        assert (done.returncode, done.stderr) == (0, "")
