"""A PostgreSQL that refuses what the server needs: told at once, with the setting to change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest

from authz.domain.entities import Course
from authz.domain.errors import ErrorReason, UnavailableError
from authz.store import open_store, prepare_store
from tests.cli.commands import run
from tests.faults.postgresql import Cluster, Clusters
from tests.faults.processes import DIRECTORY, Node, running
from tests.faults.test_outage import NOT_SERVING, SERVING, allowed, connected, refused, write
from tests.serving import over_grpc
from tests.store.directory import VOCABULARY, Clock, create
from tests.store.directory import write as write_to

_HBA = """
host all postgres 127.0.0.1/32 trust
host forbidden all 127.0.0.1/32 reject
host all all 127.0.0.1/32 scram-sha-256
"""
PASSWORD = "s3cret-w0rd"


@pytest.fixture(scope="module")
def cluster(cluster_template: Clusters) -> Iterator[Cluster]:
    """A cluster that asks for passwords."""
    made = cluster_template.migrated()
    (made.data / "pg_hba.conf").write_text(_HBA)
    with made.connect() as connection:
        connection.execute("SELECT pg_reload_conf()")
        connection.execute(f"CREATE ROLE authz LOGIN PASSWORD '{PASSWORD}'".encode())
        connection.execute("CREATE ROLE crowd LOGIN CONNECTION LIMIT 0")
        for name in ("owned OWNER authz", "empty", "forbidden"):
            connection.execute(f"CREATE DATABASE {name}".encode())
    yield made
    made.stop()


def url_of(cluster: Cluster, user: str, database: str, query: str = "") -> str:
    return f"postgresql://{user}@{cluster.host}/{database}{query}"


REFUSALS = {
    "authz:wrong@owned": "refuses the server's user or password; set the user in AUTHZ_DATABASE_URL",
    "authz@owned": "AUTHZ_DATABASE_PASSWORD_FILE",
    "nobody:x@owned": "refuses the server's user or password",
    "postgres@missing": "there is no such database; name another in AUTHZ_DATABASE_URL",
    f"authz:{PASSWORD}@forbidden": "pg_hba.conf` allows no such connection; allow",
    f"authz:{PASSWORD}@empty": "GRANT USAGE, CREATE ON SCHEMA public TO <user>",
    "postgres@owned?sslmode=require": "correct its `sslmode`",
    "postgres@owned?options=-c%20nonsense%3D1": "has an option that",
    "postgres@owned?service=nowhere": "has an option that",
}


@pytest.mark.parametrize("place", REFUSALS)
@pytest.mark.parametrize("command", ["serve --transport grpc", "migrate", "follow"])
def test_what_does_not_pass_by_itself_ends_the_start_with_the_setting_to_change(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    user, _, rest = place.rpartition("@")
    name, _, query = rest.partition("?")
    url = url_of(cluster, user, name, f"?{query}" if query else "")
    done = run(
        *command.split(), AUTHZ_DATABASE_URL=url, AUTHZ_ADDRESS="127.0.0.1:0", AUTHZ_REPLICA_DIR="replica"
    )
    assert done.returncode == 2
    assert REFUSALS[place] in done.stderr
    assert "try again" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert PASSWORD not in done.stderr
    assert "wrong" not in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "option",
    [
        "sslmode=verifyfull",
        "sslmode=verify-ca&sslrootcert=system",
        "channel_binding=require",
        "channel_binding=yes",
        "target_session_attrs=rw",
        "target_session_attrs=read-only",
        "target_session_attrs=standby",
        "load_balance_hosts=yes",
        "require_auth=gss",
        "gssencmode=require",
        "ssl_min_protocol_version=TLSv9",
        "connect_timeout=soon",
        "keepalives=soon",
        "tcp_user_timeout=soon",
        "hostaddr=127.0.0.300",
        "port=99999",
        "client_encoding=none",
        "options=-c%20search_path",
    ],
)
def test_an_option_that_no_wait_mends_is_told_as_such(cluster: Cluster, option: str) -> None:
    with pytest.raises(UnavailableError) as refused:
        prepare_store(url_of(cluster, "postgres", "owned", f"?{option}"))
    assert refused.value.reason is ErrorReason.STORE_MISCONFIGURED
    assert "AUTHZ_DATABASE_URL" in refused.value.message


@pytest.mark.parametrize(("variable", "value"), [("PGSERVICE", "nowhere"), ("PGSSLMODE", "require")])
def test_a_variable_of_libpq_that_no_wait_mends_is_told_as_such(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(UnavailableError, match="or a variable of libpq such as") as refused:
        prepare_store(url_of(cluster, "postgres", "owned"))
    assert refused.value.reason is ErrorReason.STORE_MISCONFIGURED


@over_grpc
def test_a_replica_does_not_hide_a_password_that_is_wrong(cluster: Cluster, tmp_path: Path) -> None:
    good = Node("one", url_of(cluster, f"authz:{PASSWORD}", "owned"), tmp_path)
    with running(good), connected(good) as stubs:
        write(stubs, 1)
    bad = Node("one", url_of(cluster, "authz:wrong", "owned"), tmp_path)
    bad.launch()
    assert bad.process.wait(60) == 2
    assert "refuses the server's user or password" in bad.log.read_text()


@over_grpc
def test_a_role_that_is_shut_out_while_a_server_runs_is_named_as_the_cause(
    cluster: Cluster, tmp_path: Path
) -> None:
    with cluster.connect() as connection:
        connection.execute("CREATE ROLE leaver LOGIN PASSWORD 'x'")
        connection.execute("CREATE DATABASE left_behind OWNER leaver")
    node = Node("one", url_of(cluster, "leaver:x", "left_behind"), tmp_path)
    with running(node), connected(node) as stubs, cluster.connect() as connection:
        write(stubs, 1)
        connection.execute("ALTER ROLE leaver NOLOGIN")
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'leaver'")
        node.await_health(DIRECTORY, NOT_SERVING)
        assert refused(lambda: write(stubs, 2)).reason == "STORE_MISCONFIGURED"
        assert allowed(stubs, 1)
        assert "refuses the server's user or password" in node.log.read_text()
        connection.execute("ALTER ROLE leaver LOGIN")
        node.await_health(DIRECTORY, SERVING)
        write(stubs, 2)


@pytest.mark.parametrize(
    ("sqlstate", "reason"),
    [
        ("53100", ErrorReason.STORE_FULL),
        ("25006", ErrorReason.STORE_READ_ONLY),
        ("25P03", ErrorReason.STORE_UNAVAILABLE),
        ("25P04", ErrorReason.STORE_MISCONFIGURED),
        ("42501", ErrorReason.STORE_MISCONFIGURED),
        ("26000", ErrorReason.STORE_MISCONFIGURED),
        ("42P05", ErrorReason.STORE_MISCONFIGURED),
    ],
)
def test_a_write_that_the_database_refuses_is_told_by_its_cause(
    postgresql_url: str, sqlstate: str, reason: ErrorReason
) -> None:
    body = f"BEGIN RAISE SQLSTATE '{sqlstate}' USING MESSAGE = 'text of the driver'; END"
    function = f"CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $${body}$$"
    with psycopg.connect(postgresql_url) as connection:
        connection.execute(function.encode())
        connection.execute("CREATE TRIGGER refuse BEFORE INSERT ON courses EXECUTE FUNCTION refuse()")
    store = open_store(postgresql_url, vocabularies=lambda *_: VOCABULARY, clock=Clock())
    with pytest.raises(UnavailableError) as caught:
        write_to(store, create(Course(id="c")))
    assert caught.value.reason is reason
    assert "driver" not in caught.value.message
    assert "text of the driver" in caught.value.__notes__[0]
    if reason in (ErrorReason.STORE_FULL, ErrorReason.STORE_READ_ONLY):
        cause = caught.value.message
        caught.value.append("; the import ended here")  # as an import does, for its own client
        with pytest.raises(UnavailableError, match=r"read-only|is full") as told:
            store.directory.require_serving()
        assert told.value.message == cause
    with psycopg.connect(postgresql_url) as connection:
        connection.execute("DROP TRIGGER refuse ON courses")
    write_to(store, create(Course(id="c")))
    store.directory.require_serving()
    store.close()


def test_a_search_path_without_a_schema_is_told_as_such(cluster: Cluster) -> None:
    with cluster.connect() as connection:
        connection.execute("CREATE DATABASE adrift")
        connection.execute("ALTER DATABASE adrift SET search_path = nowhere")
    with pytest.raises(UnavailableError, match="names no schema that exists") as caught:
        prepare_store(url_of(cluster, "postgres", "adrift"))
    assert caught.value.reason is ErrorReason.STORE_MISCONFIGURED
    with psycopg.connect(url_of(cluster, "postgres", "adrift")) as connection:
        connection.execute("CREATE SCHEMA nowhere AUTHORIZATION postgres")
    prepare_store(url_of(cluster, "postgres", "adrift"))


def test_a_primary_that_takes_no_writes_is_called_read_only(cluster: Cluster) -> None:
    with cluster.connect() as connection:
        connection.execute("CREATE DATABASE quiet")
        prepare_store(url_of(cluster, "postgres", "quiet"))
        connection.execute("ALTER DATABASE quiet SET default_transaction_read_only = on")
    with pytest.raises(UnavailableError) as caught:
        prepare_store(url_of(cluster, "postgres", "quiet"))
    assert caught.value.reason is ErrorReason.STORE_READ_ONLY


def test_a_database_without_the_tables_is_called_so(postgresql_url: str) -> None:
    store = open_store(postgresql_url, vocabularies=lambda *_: VOCABULARY, clock=Clock())
    with psycopg.connect(postgresql_url) as connection:
        connection.execute("DROP TABLE counter CASCADE")
    with pytest.raises(UnavailableError, match="lacks the tables of the service; wait until it is restored"):
        store.directory.head()
    store.close()


def test_connections_that_are_used_up_are_called_so(cluster: Cluster) -> None:
    with cluster.connect() as connection:
        connection.execute("ALTER ROLE crowd SUPERUSER")
        connection.execute("ALTER ROLE crowd NOSUPERUSER PASSWORD 'x'")
    with pytest.raises(UnavailableError, match="the `CONNECTION LIMIT` of the user"):
        prepare_store(url_of(cluster, "crowd:x", "owned"))


def secret_in_file(folder: Path) -> tuple[str, dict[str, str]]:
    (folder / "password").write_text(f"{PASSWORD}\n")
    return "", {"AUTHZ_DATABASE_PASSWORD_FILE": str(folder / "password")}


def secret_in_passfile(folder: Path) -> tuple[str, dict[str, str]]:
    (folder / "pgpass").write_text(f"*:*:*:authz:{PASSWORD}\n")
    (folder / "pgpass").chmod(0o600)
    return f"?passfile={folder / 'pgpass'}", {}


def secret_in_passfile_of_environment(folder: Path) -> tuple[str, dict[str, str]]:
    secret_in_passfile(folder)
    return "", {"PGPASSFILE": str(folder / "pgpass")}


def secret_in_service(folder: Path) -> tuple[str, dict[str, str]]:
    (folder / "services").write_text(f"[permissions]\npassword={PASSWORD}\n")
    return "?service=permissions", {"PGSERVICEFILE": str(folder / "services")}


@pytest.mark.parametrize(
    ("place", "workers", "transport"),
    [
        (secret_in_file, "2", "envoy"),
        (secret_in_passfile, "1", "grpc"),
        (secret_in_passfile_of_environment, "2", "grpc"),
        (secret_in_service, "1", "envoy"),
    ],
)
def test_a_password_comes_from_a_file_and_shows_nowhere(
    cluster: Cluster,
    tmp_path: Path,
    place: Callable[[Path], tuple[str, dict[str, str]]],
    workers: str,
    transport: str,
) -> None:
    query, variables = place(tmp_path)
    url = url_of(cluster, "authz", "owned", query)
    variables |= {"AUTHZ_WORKERS": workers, "AUTHZ_TRANSPORT": transport, "AUTHZ_LOG_LEVEL": "debug"}
    node = Node("one", url, tmp_path, **variables)
    with running(node), connected(node) as stubs:
        write(stubs, 1)
        node.await_health(DIRECTORY, SERVING)
        for process in [psutil.Process(node.process.pid), *node.children()]:
            assert PASSWORD not in " ".join(process.cmdline())
    assert PASSWORD not in node.log.read_text()
    assert not any(
        PASSWORD.encode() in each.read_bytes() for each in node.replica.rglob("*") if each.is_file()
    )


@over_grpc
def test_a_password_that_changes_in_its_file_is_used_without_a_restart(
    cluster: Cluster, tmp_path: Path
) -> None:
    with cluster.connect() as connection:
        connection.execute("CREATE ROLE changing LOGIN PASSWORD 'old'")
        connection.execute("CREATE DATABASE changing OWNER changing")
    file = tmp_path / "password"
    file.write_text("old")
    variables = {"AUTHZ_DATABASE_PASSWORD_FILE": str(file)}
    node = Node("one", url_of(cluster, "changing", "changing"), tmp_path, **variables)
    with running(node), connected(node) as stubs, cluster.connect() as connection:
        connection.execute("ALTER ROLE changing PASSWORD 'new'")
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'changing'"
        )
        node.await_health(DIRECTORY, NOT_SERVING)
        file.write_text("new")
        node.await_health(DIRECTORY, SERVING)
        write(stubs, 1)
        assert allowed(stubs, 1)


def test_a_password_that_is_given_twice_or_cannot_be_read_is_refused(
    cluster: Cluster, tmp_path: Path
) -> None:
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "good").write_text(PASSWORD)
    url = url_of(cluster, "authz", "owned")
    for name, where in (("binary", url), ("good", url.replace("@", ":x@", 1)), ("missing", url)):
        done = run("migrate", AUTHZ_DATABASE_URL=where, AUTHZ_DATABASE_PASSWORD_FILE=str(tmp_path / name))
        assert done.returncode == 2
        assert "AUTHZ_DATABASE_PASSWORD_FILE" in done.stderr
    assert (
        run("migrate", AUTHZ_DATABASE_URL=url, AUTHZ_DATABASE_PASSWORD_FILE=str(tmp_path / "good")).returncode
        == 0
    )


@over_grpc
def test_a_replica_is_the_same_whatever_the_password(cluster: Cluster, tmp_path: Path) -> None:
    state: list[bytes] = []
    for password in ("", f":{PASSWORD}"):
        _, variables = ("", {}) if password else secret_in_file(tmp_path)
        node = Node("one", url_of(cluster, f"authz{password}", "owned"), tmp_path, **variables)
        with running(node):
            # The words of the page: the boot, the database, the generation.
            state.append((node.replica / "state").read_bytes()[:24])
    assert state[0] == state[1]
