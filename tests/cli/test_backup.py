"""A backup that is made while servers write holds one state, and becomes a database of either kind."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from authz.client import Client
from authz.domain.entities import Course, CourseState, Membership
from authz.domain.ids import course_scope, parse_subject
from authz.domain.mutations import Mutation, Operation
from authz.store.database.engine import open_engine, opened
from authz.store.schema import current_schema
from tests.callers import directory_of
from tests.cli.commands import run
from tests.databases import create_sqlite
from tests.serving import served
from tests.store.test_schema import make_older

MAYA = parse_subject("user:maya")


def term(number: int) -> list[Mutation]:
    """A course and its student: always both or neither."""
    course = Course(id=f"c{number}", state=CourseState.ACTIVE)
    student = Membership(subject=MAYA, scope=course_scope(course.id), role="student")
    return [Mutation(Operation.CREATE, course), Mutation(Operation.CREATE, student)]


@contextmanager
def client_of(url: str) -> Iterator[Client]:
    with served(url) as address, Client(address) as client:
        yield client


def restored_into(request: pytest.FixtureRequest, kind: str, folder: Path) -> str:
    """The URL of an empty database of a kind."""
    if kind == "postgresql":
        return str(request.getfixturevalue("empty_postgresql_url"))
    return f"sqlite:///{folder / 'restored.db'}"


@pytest.mark.parametrize("target", ["sqlite", "postgresql"])
def test_a_backup_under_load_is_one_state_and_is_served_after_it_was_restored(
    request: pytest.FixtureRequest, store_url: str, target: str, tmp_path: Path
) -> None:
    file, done, written = tmp_path / "backup.db", threading.Event(), [0]
    with client_of(store_url) as client:

        def write() -> None:
            while not done.is_set():
                client.write(term(written[0]))
                written[0] += 1

        writer = threading.Thread(target=write)
        writer.start()
        try:
            while written[0] < 20:
                done.wait(0.01)
            acknowledged = written[0]
            made = run("backup", file, "--database", store_url)
            before_the_end = written[0]
            while written[0] < before_the_end + 5:
                done.wait(0.01)
        finally:
            done.set()
            writer.join()
    assert (made.returncode, made.stderr) == (0, "")
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.glob("backup.db*")] == ["backup.db"]
    url = restored_into(request, target, tmp_path)
    done_restoring = run("restore", file, "--database", url)
    assert done_restoring.returncode == 0, done_restoring.stderr
    with client_of(url) as client:
        courses = {each.entity.id for each in client.read_courses()}
        students = {each.entity.scope.id for each in client.read_memberships(subject=MAYA)}
        assert courses == students == {f"c{number}" for number in range(len(courses))}
        assert acknowledged <= len(courses) <= before_the_end + 1
        assert client.check("user:maya", "read", "course:c0")
        client.write(term(len(courses)))
        assert client.check("user:maya", "read", f"course:c{len(courses)}")
    with directory_of(url) as directory:
        changes = directory.follow(0, 10_000).changes
        assert [each.revision for each in changes] == list(range(1, len(courses) + 3))


def test_what_is_no_backup_or_would_be_overwritten_is_refused(sqlite_url: str, tmp_path: Path) -> None:
    with directory_of(sqlite_url):
        pass  # it has its policy now
    file = tmp_path / "backup.db"
    assert run("backup", file, "--database", sqlite_url).returncode == 0
    again = run("backup", file, "--database", sqlite_url)
    assert again.returncode == 2 and "is there; name another" in again.stderr
    nowhere = run("backup", tmp_path / "no" / "backup.db", "--database", sqlite_url)
    assert nowhere.returncode == 2
    assert f"FILE is in `{tmp_path / 'no'}`, which is no folder; make it" in nowhere.stderr
    own = run("backup", f"{sqlite_url.removeprefix('sqlite:///')}-journal", "--database", sqlite_url)
    assert own.returncode == 2 and "is for the database itself; name another" in own.stderr
    full = run("restore", file, "--database", sqlite_url)
    assert full.returncode == 2 and "the database is not empty" in full.stderr
    new = f"sqlite:///{tmp_path / 'new.db'}"
    damaged = tmp_path / "damaged.db"
    damaged.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    other = tmp_path / "other.db"
    sqlite3.connect(other).execute("CREATE TABLE t (x)").connection.close()
    (tmp_path / "text").write_text("hello")
    unused = tmp_path / "unused.db"
    sqlite3.connect(unused).execute("CREATE TABLE alembic_version (version_num)").connection.close()
    for bad in (damaged, other, unused, tmp_path / "text"):
        refused = run("restore", bad, "--database", new)
        assert refused.returncode == 2 and "is no whole backup" in refused.stderr, bad
    gone = run("restore", tmp_path / "gone", "--database", new)
    assert gone.returncode == 2 and f"'{tmp_path / 'gone'}' does not exist" in gone.stderr
    (tmp_path / "backup.db-wal").touch()
    in_use = run("restore", file, "--database", new)
    assert in_use.returncode == 2 and "is a database in use" in in_use.stderr
    (tmp_path / "backup.db-wal").unlink()
    done = run("restore", file, "--database", new)
    assert done.returncode == 0
    assert "people who were erased after this backup are in the database again" in done.stderr


def test_a_backup_of_another_release_is_migrated_or_refused(sqlite_url: str, tmp_path: Path) -> None:
    older = tmp_path / "older.db"
    engine = open_engine(create_sqlite(older))
    make_older(engine)
    engine.dispose()
    before = older.read_bytes()
    migrated = f"sqlite:///{tmp_path / 'migrated.db'}"
    assert run("restore", older, "--database", migrated).returncode == 0
    assert older.read_bytes() == before
    with client_of(migrated) as client:
        client.write(term(0))
        assert not [*client.read_access_tokens()]
    with directory_of(sqlite_url):
        pass
    file = tmp_path / "backup.db"
    assert run("backup", file, "--database", sqlite_url).returncode == 0
    with sqlite3.connect(file) as newer:
        newer.execute("UPDATE alembic_version SET version_num = '9999'")
    newer.close()
    refused = run("restore", file, "--database", f"sqlite:///{tmp_path / 'a.db'}")
    assert refused.returncode == 2 and "of a newer release" in refused.stderr


def test_a_failed_backup_leaves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "backup.db"
    failed = run("backup", file, "--database", f"sqlite:///{tmp_path / 'none' / 'authz.db'}")
    assert failed.returncode == 2
    assert not [*tmp_path.glob("backup*")]


@pytest.mark.parametrize("target", ["sqlite", "postgresql"])
def test_a_failed_restore_leaves_the_database_without_tables(
    request: pytest.FixtureRequest, sqlite_url: str, target: str, tmp_path: Path
) -> None:
    file, erasures = tmp_path / "backup.db", tmp_path / "erasures.json"
    other = f"sqlite:///{tmp_path / 'other.db'}"
    assert run("migrate", "--database", other).returncode == 0
    assert run("privacy", "erasures", "--export", erasures, "--database", other).returncode == 0
    with directory_of(sqlite_url):
        pass
    assert run("backup", file, "--database", sqlite_url).returncode == 0
    url = restored_into(request, target, tmp_path)
    failed = run("restore", file, "--erasures", erasures, "--database", url)
    assert failed.returncode == 2 and "name the file that" in failed.stderr
    with opened(url) as engine:
        assert current_schema(engine) is None
    assert run("restore", file, "--database", url).returncode == 0


def test_a_full_disk_is_that_of_the_backup(sqlite_url: str, tmp_path: Path) -> None:
    with directory_of(sqlite_url):
        pass
    folder = tmp_path / "small"
    folder.mkdir()
    limited = f"ulimit -f 64; exec {sys.executable} -m authz.cli backup {folder}/b --database {sqlite_url}"
    failed = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, timeout=120, check=False)
    assert failed.returncode == 2
    assert f"the disk of `{folder}` stores no more" in failed.stderr
    assert not [*folder.iterdir()]
