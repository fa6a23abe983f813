"""Real databases for every test that needs one: a SQLite file, or a database of a real PostgreSQL."""

from __future__ import annotations

import gc
import itertools
import os
import shutil
import tempfile
from asyncio import AbstractEventLoop
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio
import uvloop

from authz.runtime.envoy import choose_transport
from authz.runtime.logs import WRITER, configure_logging
from authz.runtime.settings import Settings
from tests import (
    forkserver,
    properties,  # noqa: F401  gives every property the profile
)
from tests.compiled import compile_policies_once
from tests.databases import PostgresqlServer, create_sqlite, running_postgresql, sqlite_url_of
from tests.service import Service, serve
from tests.serving import find_free_port, needs_envoy
from tests.statements import compile_once

# Where it is set, each of the many processes that tests start would compile the package again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

compile_once()
compile_policies_once()

# Until all tests are collected, which each process of a parallel run does: what that makes stays.
gc.disable()

_MEMORY = Path("/dev/shm")  # noqa: S108  for folders with random names
_SPACE_BYTES = 4 << 30
if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > _SPACE_BYTES:
    # Writing every database to a disk takes a quarter of the processor time, that of PostgreSQL above all.
    # Processes are killed here, and no test cuts the power.
    os.environ["TMPDIR"] = tempfile.tempdir = str(_MEMORY)

_WAITING_S = {
    "faults/test_hung_database": 65,
    "runtime/test_hangs": 41,
    "faults/test_acknowledged": 40,
    "faults/test_outage": 34,
    "runtime/test_server": 30,
    "runtime/test_stop": 28,
    "faults/test_database_file": 28,
    "client/test_servers": 25,
    "runtime/test_liveness": 23,
    "faults/test_policies": 20,
    "api/test_watch_ends": 17,
    "client/test_watch": 16,
    "client/test_retries": 15,
    "api/test_long_calls": 14,
    "faults/test_cascade": 14,
    "runtime/test_tls_files": 13,
    "client/test_cache": 13,
    "api/test_erasure_elsewhere": 13,
    "faults/test_failover": 12,
    "runtime/test_envoy": 10,
    "store/database/test_watchdog": 8,
    "runtime/test_connections": 7,
}
"""About how long the files take that mostly wait, in which processors idle unless others compute."""
_COMPUTING_S = {
    "real/test_oulad": 30,
    "test_readme": 30,
    "faults/test_linearizable": 28,
    "cli/test_unwritten_output": 26,
    "packaging/test_languages": 20,
    "runtime/test_supervise": 18,
    "store/privacy/test_personal_texts": 18,
    "client/test_every_question": 18,
    "api/test_watch": 17,
    "faults/test_greedy": 17,
    "faults/test_refusals": 17,
    "store/privacy/test_purges_beside_erasures": 17,
    "store/privacy/test_erasures": 15,
    "runtime/test_logs": 14,
    "api/test_course_policies": 13,
    "cli/test_pull_request_check": 12,
    "api/test_rights": 12,
    "api/test_publishing_at_once": 11,
    "runtime/test_environment": 11,
    "store/test_kinds": 10,
    "store/test_removals": 10,
    "api/test_write": 10,
    "store/privacy/test_erasures_at_once": 10,
    "policy/test_reference": 10,
    "cli/test_policy_versions": 10,
    "testing/test_plugin": 7,
    "testing/test_isolation": 7,
}
"""The same of the other files that take long."""
_OTHERS_S = 2.0
_SPREAD = 0.9
"""The part of the run over which those that wait are spread: none begins at the end, and is waited for."""
_numbers = itertools.count(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin the files that mostly wait one after the other, among the others, so that no processor idles.
    Mark what uses a database, or Envoy."""
    folder = Path(__file__).parent
    if gone := [name for name in _WAITING_S | _COMPUTING_S if not (folder / f"{name}.py").is_file()]:
        raise pytest.UsageError(f"tests/conftest.py orders files that do not exist: {gone}; rename them")
    paths = dict.fromkeys(item.path for item in items)
    waiting = {path: each for path in paths if (each := _seconds(path, _WAITING_S))}
    computing = {path: _seconds(path, _COMPUTING_S) or _OTHERS_S for path in paths if path not in waiting}
    begins = {**_begins(waiting, _SPREAD), **_begins(computing, 1)}
    items.sort(key=lambda item: (begins[item.path], item.path))
    for item in items:
        if any(name.endswith("_url") for name in getattr(item, "fixturenames", ())):
            item.add_marker("database")
        if isinstance(item, pytest.Function) and _names_envoy(item):
            item.add_marker(needs_envoy)


def _names_envoy(item: pytest.Function) -> bool:
    """Whether a parameter of a test says that Envoy serves."""
    given = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return any("envoy" in each.split() for each in given if isinstance(each, str))


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], AbstractEventLoop]]:
    """The event loop of `authz serve`, also for servers inside the process of the tests."""
    return {"uvloop": uvloop.new_event_loop}


def pytest_collection_finish() -> None:
    """Leave what is imported and collected out of garbage collections: all of it stays until the end. Collect
    less often than by default, which takes a twelfth of the processor time of tests of the API."""
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)
    gc.enable()


def _seconds(path: Path, seconds: dict[str, int]) -> float:
    return seconds.get(path.relative_to(Path(__file__).parent).with_suffix("").as_posix(), 0)


def _begins(seconds: dict[Path, float], spread: float) -> dict[Path, float]:
    """The part of the run after which each begins, if they run one after the other over a part of it, the
    longest first."""
    ordered = sorted(seconds, key=seconds.__getitem__, reverse=True)
    ends = itertools.accumulate(seconds[path] for path in ordered)
    total = sum(seconds.values())
    return {path: spread * (end - seconds[path]) / total for path, end in zip(ordered, ends, strict=True)}


@pytest.hookimpl(wrapper=True, trylast=True)
def _write_log_lines() -> Generator[None, object, object]:
    """Have the thread that writes log lines write those of a step while its output is still captured."""
    try:
        return (yield)
    finally:
        WRITER.flush()


pytest_runtest_setup = pytest_runtest_call = pytest_runtest_teardown = _write_log_lines


@pytest.fixture(autouse=True)
def log_of_the_test() -> Iterator[None]:
    """Log every level, whatever a command has set in this process, and capture the lines, which a thread
    writes, with the test that they are of. Servers that several tests share log nothing between them."""
    configure_logging("debug")
    yield
    WRITER.flush()
    configure_logging("critical")


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgresqlServer]:
    """One PostgreSQL for each process that runs tests."""
    with running_postgresql() as server:
        yield server


@contextmanager
def _named(server: PostgresqlServer) -> Iterator[str]:
    """A name for a database, which is dropped at the end. No server of it may leave its replica in the folder
    that it runs in: see `tests.serving.replica_folder`."""
    name = f"authz_{next(_numbers)}"
    yield name
    server.drop(name)
    assert not list(Path.cwd().glob(f"authz-{name}-*")), "a server had no AUTHZ_REPLICA_DIR"


@pytest.fixture
def postgresql_url(postgresql_server: PostgresqlServer) -> Iterator[str]:
    """A migrated, empty database with an identity of its own."""
    with _named(postgresql_server) as name:
        yield postgresql_server.create(name)


@pytest.fixture
def empty_postgresql_url(postgresql_server: PostgresqlServer) -> Iterator[str]:
    """A database without any table."""
    with _named(postgresql_server) as name:
        yield postgresql_server.create_empty(name)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A migrated, empty database with an identity of its own."""
    return create_sqlite(tmp_path / "authz.db")


@pytest.fixture
def empty_sqlite_url(tmp_path: Path) -> str:
    """A SQLite file that does not exist yet."""
    return sqlite_url_of(tmp_path / "authz.db")


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest) -> str:
    """A migrated database of each kind in turn: every test that uses this runs on both."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest) -> str:
    """A database of each kind in turn, without any table."""
    url: str = request.getfixturevalue(f"empty_{request.param}_url")
    return url


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shared_store_url(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """As `store_url`, one for all tests of a module."""
    if request.param == "sqlite":
        yield create_sqlite(tmp_path_factory.mktemp("shared") / "authz.db")
        return
    server: PostgresqlServer = request.getfixturevalue("postgresql_server")
    with _named(server) as name:
        yield server.create(name)


@pytest.fixture(scope="module")
def shared_sqlite_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """As `sqlite_url`, one for all tests of a module."""
    return create_sqlite(tmp_path_factory.mktemp("shared") / "authz.db")


@pytest.fixture(params=["grpc", "envoy"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each transport in turn: see `both_transports`."""
    name: str = request.param
    monkeypatch.setattr(forkserver, "TRANSPORT", name)
    return name


@pytest.fixture
def over_grpc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Serve over grpc.aio, which starts in half of the processor time, unless `TRANSPORT` says otherwise: for
    the store and the replica, in which no transport takes part. See `tests.serving.over_grpc`."""
    if not forkserver.TRANSPORT:
        monkeypatch.setattr(forkserver, "TRANSPORT", "grpc")


@pytest.fixture
def free_port() -> int:
    """A port that no process listens at."""
    return find_free_port()


@pytest.fixture
async def service(store_url: str) -> AsyncIterator[Service]:
    """A real server and a channel to it, on SQLite and on PostgreSQL."""
    async with serve(store_url) as each:
        yield each


@pytest.fixture
async def sqlite_service(sqlite_url: str) -> AsyncIterator[Service]:
    """The same on SQLite alone, for what does not depend on the database."""
    async with serve(sqlite_url) as each:
        yield each


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_sqlite_service(shared_sqlite_url: str) -> AsyncIterator[Service]:
    """As `shared_service`, on SQLite alone."""
    async with serve(shared_sqlite_url, transport=choose_transport(Settings()).transport) as each:
        yield each


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_service(shared_store_url: str) -> AsyncIterator[Service]:
    """As `service`, one for all tests of a module, which run in its event loop: `loop_scope="module"`.

    Over the default transport, where `service` has grpc.aio, so that both serve tests of the whole API.
    """
    async with serve(shared_store_url, transport=choose_transport(Settings()).transport) as each:
        yield each
