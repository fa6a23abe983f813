"""Where the files go that belong to a database, and how connections begin."""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import islice
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from sqlalchemy import text

from authz.domain.entities import Course, Membership, MembershipFilter
from authz.domain.errors import (
    ConflictError,
    ErrorReason,
    InvalidArgumentError,
    OverloadedError,
    UnavailableError,
)
from authz.domain.ids import course_scope
from authz.domain.mutations import Mutation
from authz.domain.origin import Origin
from authz.domain.ports import Page
from authz.store import companion_path, prepare_store
from authz.store.database import engine
from authz.store.database.connections import expecting_long_statements
from authz.store.database.engine import (
    bounded_read_transaction,
    open_engine,
    opened,
    read_transaction,
    write_transaction,
)
from tests.access.certificates import server_certificate
from tests.store.directory import create, open_with, remove, student, write


def test_they_are_beside_a_sqlite_file() -> None:
    assert companion_path("sqlite:////var/lib/authz.db", ".replica") == Path("/var/lib/authz.db.replica")


def test_databases_of_one_name_on_several_hosts_share_none() -> None:
    urls = (
        "postgresql://authz@db1/authz",
        "postgresql://authz@db2/authz",
        "postgresql://authz@db1:5433/authz",
        "postgresql://authz@/authz?host=db1&host=db2",
        "postgresql://authz@db1/other",
        "postgresql://authz@db1/authz?port=5433",
        "postgresql://authz@/authz?service=db1",
        "postgresql://authz@/authz?host=db1&hostaddr=10.0.0.1",
        "postgresql://authz@/authz?host=db1&dbname=other",
    )
    paths = [companion_path(url, ".replica") for url in urls]
    assert len(set(paths)) == len(urls)
    assert all(path.name.startswith(("authz-authz-", "authz-other-")) for path in paths)
    # Who asks does not matter, and no password is told.
    assert companion_path("postgresql://somebody:secret@db1/authz", ".replica") == paths[0]


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("mysql://db1/authz", "is neither `sqlite:///<file>` nor `postgresql://"),
        ("authz.db", "is neither `sqlite:///<file>` nor `postgresql://"),
        ("postgresql://authz@db1:port/authz", "has a port that is not a number"),
        ("postgresql://authz@db1:5432,db2:5432/authz", "several hosts are `?host=db1:5432&host=db2:5432`"),
        ("postgresql://authz@[::1/authz", "has a port that is not a number"),
        ("postgresql://authz:pass@word@db1/authz", "has a second `@`; in a password write `%40`"),
        ("postgresql://authz:p@ss/word@db1/authz", "has a second `@`; in a password write `%40`"),
        ("postgresql://authz@/authz?host=db1:1&host=db2:two", "has an option that cannot be read"),
        ("postgresql://authz@/authz?host=a,b&port=1,2,3", "has an option that cannot be read"),
        ("sqlite:///authz.db?timeout=two", "has an option that cannot be read"),
        ("sqlite:///authz.db?mode=ro", "has the option `mode`; for SQLite there is only `timeout`"),
        ("sqlite://", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite:///:memory:", "for tests: `authz serve --memory`"),
        ("sqlite:///file::memory:", "for tests: `authz serve --memory`"),
        ("sqlite:///file::memory:?cache=shared&uri=true", "for tests: `authz serve --memory`"),
        ("sqlite:///file:any?mode=memory&uri=true", "for tests: `authz serve --memory`"),
        ("sqlite:///file:authz.db?uri=true", "write the path of the file without `file:`"),
        ("sqlite:///file:authz.db", "write the path of the file without `file:`"),
    ],
)
def test_a_url_of_no_database_is_refused_without_a_word_of_its_password(url: str, complaint: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        open_engine(url)
    assert complaint in refused.value.message
    assert "AUTHZ_DATABASE_URL" in refused.value.message
    assert "word@" not in refused.value.message


@pytest.mark.parametrize("name", ["a@b", "50%", "my db/ü"])
def test_a_database_may_have_any_name(name: str) -> None:
    made = open_engine(f"postgresql://authz:pass%40word@db1/{quote(name, safe='')}")
    assert made.url.database == name


def test_a_pooler_gets_no_start_up_option_that_it_refuses() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        url = f"postgresql://authz@127.0.0.1:{listener.getsockname()[1]}/authz"
        started = pool.submit(start_up_parameters, listener)
        with pytest.raises(UnavailableError):
            prepare_store(url)
        # Source: https://www.pgbouncer.org/config.html, `ignore_startup_parameters`
        assert started.result(30) <= {"user", "database", "client_encoding", "application_name"}


def test_a_pooler_without_transactions_is_told_as_such() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        url = f"postgresql://authz@127.0.0.1:{listener.getsockname()[1]}/authz?sslmode=disable"
        served = pool.submit(refuse_transactions, listener)
        with pytest.raises(UnavailableError, match="set PgBouncer's `pool_mode` to `transaction`"):
            prepare_store(url)
        served.result(30)


def refuse_transactions(listener: socket.socket) -> None:
    """Let the next client in, and answer each of its queries as PgBouncer with `pool_mode = statement`."""

    def message(kind: bytes, body: bytes) -> bytes:
        return kind + struct.pack("!I", len(body) + 4) + body

    ready = message(b"Z", b"I")
    refusal = b"SFATAL\0C08P01\0Mtransaction blocks not allowed in statement pooling mode\0\0"
    with suppress(ConnectionResetError), listener.accept()[0] as client:
        answer = message(b"R", struct.pack("!I", 0)) + ready
        while client.recv(4096):
            client.sendall(answer)
            answer = message(b"E", refusal) + ready


def test_a_server_that_refuses_the_tls_of_the_client_is_told_as_such(tmp_path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server_certificate(tmp_path))
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        url = f"postgresql://authz@127.0.0.1:{listener.getsockname()[1]}/authz?sslmode=require"
        served = pool.submit(handshake, listener, context)
        with pytest.raises(UnavailableError, match="correct its `sslmode`"):
            prepare_store(f"{url}&ssl_max_protocol_version=TLSv1.2")
        assert "UNSUPPORTED_PROTOCOL" in served.result(30)


def handshake(listener: socket.socket, context: ssl.SSLContext) -> str:
    """Begin TLS with the next client; return what is wrong with it."""
    with listener.accept()[0] as client:
        client.recv(8, socket.MSG_WAITALL)  # the request of TLS
        client.sendall(b"S")
        try:
            context.wrap_socket(client, server_side=True)
        except ssl.SSLError as error:
            return str(error)
    return ""


def start_up_parameters(listener: socket.socket) -> set[str]:
    """The names of the parameters that the next client starts with, which is then refused."""
    with listener.accept()[0] as client:
        while True:
            (size,) = struct.unpack("!I", client.recv(4, socket.MSG_WAITALL))
            code, body = struct.unpack(f"!I{size - 8}s", client.recv(size - 4, socket.MSG_WAITALL))
            if code >> 16 == 3:
                return set(body.decode().split("\0")[:-2:2])
            client.sendall(b"N")


def test_a_write_waits_for_a_lock_as_long_as_the_url_says(postgresql_url: str) -> None:
    patient, hasty = (f"{postgresql_url}{query}" for query in ("", "&options=-c%20lock_timeout%3D100ms"))
    engine = open_engine(patient)
    with write_transaction(engine) as connection:
        assert connection.exec_driver_sql("SHOW lock_timeout").scalar_one() == "10s"
    engine.dispose()
    store = open_with(hasty)
    with psycopg.connect(postgresql_url) as other:
        other.execute("SELECT * FROM counter FOR UPDATE")
        with pytest.raises(ConflictError):
            write(store, create(Course(id="c")))
    store.close()


COUNT_FOR_EVER = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"


def test_a_read_that_takes_too_long_is_ended_and_the_next_one_is_not(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_READ_TIMEOUT_S", 0.2)
    database = open_engine(store_url)
    with (
        pytest.raises(OverloadedError, match="narrow the filter"),
        bounded_read_transaction(database) as reader,
    ):
        reader.exec_driver_sql(COUNT_FOR_EVER)
    # The same connection, from the pool, has time again.
    with write_transaction(database) as writer:
        assert writer.exec_driver_sql("SELECT 1").scalar_one() == 1
    with bounded_read_transaction(database) as reader:
        assert reader.exec_driver_sql("SELECT 1").scalar_one() == 1
    database.dispose()


def test_rows_are_found_by_index_although_the_plan_is_of_a_small_table(postgresql_url: str) -> None:
    store = open_with(postgresql_url)

    def import_all(mutations: Iterable[Mutation]) -> None:
        left = iter(mutations)
        while batch := tuple(islice(left, 250)):
            store.directory.import_batch(batch, offset=0, origin=Origin("test", "", "r"))
            store.directory.follow(store.directory.head().revision - 1, 100)
            store.directory.read(MembershipFilter(scope=course_scope("c")), Page(10))

    def members(count: int) -> list[Membership]:
        return [student(f"u{number}", "c") for number in range(count)]

    write(store, create(Course(id="c")))
    with psycopg.connect(postgresql_url, autocommit=True) as other:
        for number in range(20):  # so that the connection keeps its plans
            if number == 10:
                other.execute("ANALYZE")
            import_all(map(create, members(2)))
            import_all(map(remove, members(2)))
        import_all(map(create, members(_GROWN)))
        import_all(map(remove, members(_GROWN)))
        store.close()
        while other.execute(_OTHERS).fetchone() != (0,):  # each tells what it read when it ends
            time.sleep(0.01)
        assert other.execute(_READ_AS_A_WHOLE, {"most": 10 * _GROWN}).fetchall() == []


def test_no_statement_is_compiled(postgresql_url: str) -> None:
    with opened(postgresql_url) as engine:
        with write_transaction(engine) as connection:
            name = connection.scalar(text("SELECT current_database()"))
            connection.execute(text(f'ALTER DATABASE "{name}" SET jit = on'))
        engine.dispose()
        for transaction in (read_transaction, write_transaction, bounded_read_transaction):
            with transaction(engine) as connection:
                assert connection.scalar(text("SHOW jit")) == "off"
                with expecting_long_statements(connection):
                    assert connection.scalar(text("SHOW jit")) == "off"


def test_a_statement_timeout_of_the_database_ends_no_statement(postgresql_url: str) -> None:
    set_for_all(postgresql_url, "statement_timeout", "50ms")
    with opened(postgresql_url) as engine:
        for transaction in (read_transaction, write_transaction, bounded_read_transaction):
            with transaction(engine) as connection:
                connection.execute(text("SELECT pg_sleep(0.2)"))


def test_a_transaction_timeout_of_the_database_is_told_by_its_cause(postgresql_url: str) -> None:
    set_for_all(postgresql_url, "transaction_timeout", "100ms")
    with (
        opened(postgresql_url) as engine,
        pytest.raises(UnavailableError, match="transaction_timeout") as told,
        read_transaction(engine) as connection,
    ):
        connection.execute(text("SELECT pg_sleep(2)"))
    assert told.value.reason is ErrorReason.STORE_MISCONFIGURED


def test_a_write_that_does_nothing_does_not_block_others(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_IDLE_TIMEOUT_S", 0.2)
    store = open_with(postgresql_url)
    with (
        opened(postgresql_url) as suspended,
        pytest.raises(UnavailableError) as told,
        write_transaction(suspended) as connection,
    ):
        connection.execute(text("SELECT revision FROM counter FOR UPDATE"))
        write(store, create(Course(id="kept")))
        connection.execute(text("SELECT 1"))
    assert told.value.reason is ErrorReason.STORE_UNAVAILABLE
    store.close()


def test_a_connection_that_listens_may_be_idle(postgresql_url: str) -> None:
    set_for_all(postgresql_url, "idle_session_timeout", "50ms")
    store = open_with(postgresql_url)
    notifier = store.directory.notifier()
    for _ in range(2):
        notifier.wait(0.2, lambda: 0)
    notifier.close()
    store.close()


def set_for_all(url: str, name: str, value: str) -> None:
    """Set a parameter for the later connections to a database."""
    with psycopg.connect(url) as other:
        other.execute(f"ALTER DATABASE \"{other.info.dbname}\" SET {name} = '{value}'".encode())


def test_connections_do_not_each_wait_for_a_host_that_hangs(postgresql_url: str) -> None:
    with psycopg.connect(postgresql_url) as other, socket.create_server(("127.0.0.1", 0)) as hangs:
        hangs.setblocking(False)
        host, port, info = hangs.getsockname()[0], hangs.getsockname()[1], other.info
        url = f"postgresql://{info.user}@/{info.dbname}?host={host},{info.host}&port={port},{info.port}"
        with opened(f"{url}&connect_timeout=2") as engine, engine.connect():
            assert connections_of(hangs) == 1  # by the search before the first connection
            with engine.connect() as second, engine.connect() as third:
                assert second.scalar(text("SELECT 1")) == third.scalar(text("SELECT 1")) == 1
            assert connections_of(hangs) == 0


def connections_of(listener: socket.socket) -> int:
    """How many connections have been made since the last call."""
    count = 0
    with suppress(BlockingIOError):
        while True:
            listener.accept()[0].close()
            count += 1
    return count


@pytest.mark.parametrize(("encoding", "lacks"), [("SQL_ASCII", ""), ("LATIN1", "→")])
def test_a_database_of_another_encoding_keeps_what_it_can_store(
    empty_postgresql_url: str, encoding: str, lacks: str
) -> None:
    with psycopg.connect(empty_postgresql_url, autocommit=True) as other:
        name = f"{other.info.dbname}_{encoding.lower()}"
        url = empty_postgresql_url.replace(f"/{other.info.dbname}", f"/{name}")
        made = f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
        other.execute(made.encode())
        store = open_with(url)
        try:
            write(store, create(Course(id="c")), reason="Zoë")
            assert store.directory.follow(0, 10).changes[0].reason == "Zoë"
            if lacks:
                with pytest.raises(InvalidArgumentError, match="the encoding of the database lacks"):
                    write(store, create(Course(id="d")), reason=lacks)
        finally:
            store.close()
            other.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


_GROWN = 4000
_OTHERS = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND pid != pg_backend_pid()
"""
_READ_AS_A_WHOLE = """
    SELECT relname, seq_tup_read AS tuples FROM pg_stat_user_tables WHERE seq_tup_read > 1000
    UNION ALL SELECT indexrelname, idx_tup_read FROM pg_stat_user_indexes WHERE idx_tup_read > %(most)s
"""
