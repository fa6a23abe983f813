"""A SQLite database whose file goes away, whose disk is full, or that may not be written to."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import psutil
import pytest

from authz.client import Client
from authz.client.errors import CallError
from authz.domain.entities import Course, CourseFilter
from authz.domain.mutations import Mutation, Operation, WriteRequest
from tests.databases import create_sqlite
from tests.faults.processes import AUTHORIZATION, DIRECTORY, Node, running
from tests.faults.test_outage import NOT_SERVING, SERVING, UNAVAILABLE, allowed, connected, refused, write
from tests.forkserver import AUTHZ, run
from tests.properties import LONG
from tests.serving import over_grpc
from tests.store.directory import create, open_with
from tests.waiting import until

pytestmark = over_grpc


def delete(file: Path) -> None:
    file.unlink()


def replace(file: Path) -> None:
    create_sqlite(file.with_name("other.db"))
    file.with_name("other.db").replace(file)


def delete_log(file: Path) -> None:
    file.with_name(f"{file.name}-wal").unlink()


def opened_by(file: Path, processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those of the processes that have a file open."""
    return [each for each in processes if str(file) in {opened.path for opened in each.open_files()}]


@pytest.mark.parametrize(
    ("happens", "workers"),
    [(happens, workers) for happens in (delete, replace, delete_log) for workers in ("1", "2")]
    if LONG
    else [(delete, "2"), (replace, "1"), (delete_log, "1")],
)
def test_nothing_is_acknowledged_once_the_file_is_gone(
    sqlite_url: str, tmp_path: Path, happens: Callable[[Path], None], workers: str
) -> None:
    file = tmp_path / "authz.db"
    node = Node("one", sqlite_url, tmp_path, AUTHZ_WORKERS=workers)
    with running(node), connected(node) as stubs:
        write(stubs, 1)
        if workers == "2":
            # To one that has not opened the file yet, the file is missing, or is another.
            until(lambda: len(opened_by(file, node.workers())) == 3, "not all have opened the database")
        happens(file)
        for number in range(2, 5):
            failure = refused(lambda at=number: write(stubs, at))  # type: ignore[misc]  # bound now
            assert (failure.code, failure.reason) == (UNAVAILABLE, "STORE_REPLACED")
            assert "deleted or replaced" in failure.message
        node.await_health(DIRECTORY, NOT_SERVING)
        until(lambda: "deleted or replaced" in node.log.read_text(), "the log does not say why")
        # Checks go on, as in every outage of a database.
        assert node.health(AUTHORIZATION) == SERVING
        assert allowed(stubs, 1)
    if happens is delete:
        assert not file.exists()


def put_aside(file: Path) -> Callable[[], None]:
    """Move a database away; return how to put it back."""
    aside = file.with_name("aside")
    aside.mkdir()
    moved = [each.rename(aside / each.name) for each in file.parent.glob(f"{file.name}*") if each.is_file()]

    def put_back() -> None:
        for each in moved:
            each.rename(file.parent / each.name)

    return put_back


def empty(file: Path) -> Callable[[], None]:
    """Likewise, and leave a file without content."""
    put_back = put_aside(file)
    file.touch()
    return put_back


def require_missing_and_not_made(node: Node, file: Path, put_back: Callable[[], None]) -> None:
    """A server whose processes started without the file refuses writes and goes on with checks."""
    node.await_health(AUTHORIZATION, SERVING)
    node.await_health(DIRECTORY, NOT_SERVING)
    with connected(node) as stubs:
        failure = refused(lambda: write(stubs, 2))
        assert (failure.code, failure.reason) == (UNAVAILABLE, "STORE_UNAVAILABLE")
        assert "the file of the database is missing or empty; put it back" in failure.message
        assert allowed(stubs, 1)
    assert not file.exists() or file.stat().st_size == 0
    assert "the file of the database is missing or empty; put it back" in node.log.read_text()
    put_back()
    node.await_health(DIRECTORY, SERVING)
    with connected(node) as stubs:
        write(stubs, 2)
        assert allowed(stubs, 1)
        assert allowed(stubs, 2)


def test_processes_that_are_replaced_make_no_empty_file_for_one_that_is_gone(
    sqlite_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "authz.db"
    node = Node("one", sqlite_url, tmp_path, AUTHZ_WORKERS="2", AUTHZ_MAX_STALENESS_S="600")
    with running(node):
        with connected(node) as stubs:
            write(stubs, 1)
        before = node.workers()
        put_back = put_aside(file)
        for each in before:
            each.kill()
        psutil.wait_procs(before)
        until(lambda: len(node.workers()) == len(before), "not all were replaced")
        require_missing_and_not_made(node, file, put_back)


@pytest.mark.parametrize(("workers", "goes"), [("1", put_aside), ("2", put_aside), ("1", empty)])
def test_a_server_that_starts_again_makes_no_empty_file_for_one_that_is_gone(
    sqlite_url: str, tmp_path: Path, workers: str, goes: Callable[[Path], Callable[[], None]]
) -> None:
    file = tmp_path / "authz.db"
    node = Node("one", sqlite_url, tmp_path, AUTHZ_WORKERS=workers, AUTHZ_MAX_STALENESS_S="600")
    with running(node):
        with connected(node) as stubs:
            write(stubs, 1)
        node.kill()
        put_back = goes(file)
        node.start()
        require_missing_and_not_made(node, file, put_back)


def test_a_file_that_was_overwritten_is_told_as_damaged_and_blames_no_caller(
    sqlite_url: str, tmp_path: Path
) -> None:
    node = Node("one", sqlite_url, tmp_path)
    with running(node), connected(node) as stubs:
        write(stubs, 1)
        (tmp_path / "authz.db").write_text("not a database" * 1000)
        # Until one needs a page that SQLite has neither read before nor in its write-ahead log.
        failure = refused(lambda: [write(stubs, number) for number in range(2, 100)])
        assert (failure.code, failure.reason) == (UNAVAILABLE, "STORE_UNAVAILABLE")
        assert "is damaged" in failure.message
        assert allowed(stubs, 1)


def test_a_file_that_is_put_back_is_written_to_again(sqlite_url: str, tmp_path: Path) -> None:
    file, away = tmp_path / "authz.db", tmp_path / "away.db"
    node = Node("one", sqlite_url, tmp_path)
    with running(node), connected(node) as stubs:
        write(stubs, 1)
        file.rename(away)
        assert refused(lambda: write(stubs, 2)).reason == "STORE_REPLACED"
        away.rename(file)
        node.await_health(DIRECTORY, SERVING)
        write(stubs, 3)
        assert allowed(stubs, 3)
        assert not allowed(stubs, 2)


def test_a_server_that_starts_again_answers_from_the_file_that_is_there(
    sqlite_url: str, tmp_path: Path
) -> None:
    node = Node("one", sqlite_url, tmp_path)
    with running(node), connected(node) as stubs:
        write(stubs, 1)
        replace(tmp_path / "authz.db")
        for suffix in ("-wal", "-shm"):
            (tmp_path / f"authz.db{suffix}").unlink(missing_ok=True)
        node.await_health(DIRECTORY, NOT_SERVING)
        node.kill()
        node.start()
        with connected(node) as again:
            assert not allowed(again, 1)
            write(again, 2)
            assert allowed(again, 2)


@contextmanager
def full_disk(node: Node, file: Path) -> Iterator[None]:
    """The processes of a server may make no file larger than the database is now, as on a full disk."""
    processes = [node.process.pid, *(child.pid for child in node.children())]
    size = max(each.stat().st_size for each in file.parent.glob(f"{file.name}*") if each.is_file())
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for pid in processes:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        for pid in processes:
            with suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))


def courses(count: int) -> list[Mutation]:
    return [Mutation(Operation.TOUCH, Course(id=f"course-{number}")) for number in range(count)]


def test_a_full_disk_is_told_by_its_name_and_an_import_says_how_far_it_came(
    sqlite_url: str, tmp_path: Path
) -> None:
    node = Node("one", sqlite_url, tmp_path)
    with running(node), connected(node) as stubs, Client(node.address) as client:
        with full_disk(node, tmp_path / "authz.db"):
            with pytest.raises(CallError) as caught:
                client.import_mutations(courses(30_000))
            error = caught.value
            assert (error.code, error.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_FULL")
            assert "is full" in error.message
            written = sum(1 for _ in client.read(CourseFilter()))
            assert 0 <= written < 30_000
            assert f"written {written}, " in error.message
            assert refused_write(client).reason == "STORE_FULL"
            node.await_health(DIRECTORY, NOT_SERVING)
            until(lambda: "database refuses writes" in node.log.read_text(), "the log does not say why")
        client.write(courses(1000), reason="large")
        node.await_health(DIRECTORY, SERVING)
        write(stubs, 1)
        assert allowed(stubs, 1)


def refused_write(client: Client) -> CallError:
    """How a large write fails: if its time ends within an attempt, how the attempt before failed."""
    with pytest.raises(CallError) as caught:
        client.write(courses(1000), reason="large")
    before = caught.value.__cause__
    return before if isinstance(before, CallError) else caught.value


def without_override(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command that the permissions of files bind, also as root."""
    prefix: list[str] = []
    if os.geteuid() == 0:
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            pytest.skip("root may write to every file, and there is no `setpriv` to give that up")
        prefix = [setpriv, "--bounding-set", "-dac_override"]
    return subprocess.run(
        [*prefix, *map(str, command)], cwd=cwd, capture_output=True, text=True, timeout=120, check=False
    )


def test_a_file_that_may_not_be_written_to_is_told_by_its_name(sqlite_url: str, tmp_path: Path) -> None:
    (tmp_path / "resources.csv").write_text("type,id,course_id\nnotebook,n,c\n")
    # Gives the database its first policy, which a command that opens it would otherwise write.
    assert run("migrate", environ={**os.environ, "AUTHZ_DATABASE_URL": sqlite_url}).returncode == 0
    store = open_with(sqlite_url)
    store.directory.write(WriteRequest(mutations=(create(Course(id="c")),)))
    store.close()
    (tmp_path / "authz.db").chmod(0o444)
    command = (AUTHZ, "import", "resources", "resources.csv", "--database", sqlite_url)
    done = without_override(*command, cwd=tmp_path)
    assert done.returncode == 2
    assert "the database is read-only; give the server's user the right to write" in done.stderr
    assert "written 0, unchanged 0" in done.stderr
    assert len(done.stderr.splitlines()) == 1
