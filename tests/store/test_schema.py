"""The schema: migrated once, the same as the tables, and refused when it is another.

Tests import Alembic, which else each process that runs tests would import to collect them.
"""

from __future__ import annotations

import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, inspect, text

from authz.domain.entities import Hold, Versioned
from authz.domain.errors import AuthzError, ConflictError, ErrorReason, UnavailableError
from authz.store import prepare_store, schema
from authz.store.backup import back_up
from authz.store.database import engine as engine_module
from authz.store.database.engine import open_engine, opened, read_transaction, write_transaction
from authz.store.schema import _MIGRATIONS, _config, current_schema, migrate, migrate_within, newest_schema
from authz.store.tables import ENTITY_TABLES, metadata
from tests.databases import read_tree
from tests.store.directory import open_with, user


def test_migrating_again_changes_nothing(empty_url: str) -> None:
    first = open_with(empty_url)
    second = open_with(empty_url)
    assert first.directory.head().database_id == second.directory.head().database_id
    first.close()
    second.close()


def test_the_schema_of_this_version_is_that_of_the_last_migration() -> None:
    from alembic.script import ScriptDirectory

    migrations = ScriptDirectory.from_config(_config())
    assert newest_schema() == migrations.get_current_head()
    assert {each.path for each in migrations.walk_revisions()} == {
        str(file) for file in (_MIGRATIONS / "versions").glob("*_*.py") if file.stem != "__init__"
    }


def test_an_installation_below_a_folder_with_a_percent_sign_finds_its_migrations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alembic.script import ScriptDirectory

    copy = shutil.copytree(_MIGRATIONS, tmp_path / "100%d" / "migrations")
    monkeypatch.setattr(schema, "_MIGRATIONS", copy)
    assert ScriptDirectory.from_config(_config()).get_current_head() == newest_schema()


def test_processes_that_migrate_at_once_make_one_database(empty_url: str) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(prepare_store, [empty_url] * 4))
    open_with(empty_url).close()


def test_a_migration_waits_for_one_that_takes_longer_than_other_locks_may(
    empty_postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "_LOCK_TIMEOUT_S", 0.1)
    with opened(empty_postgresql_url) as engine, ThreadPoolExecutor(1) as pool:
        with write_transaction(engine) as first:
            migrate_within(first)
            second = pool.submit(prepare_store, empty_postgresql_url)
            with pytest.raises(TimeoutError):
                second.result(1)
        second.result(60)


def test_a_migration_next_to_a_backup_says_what_it_waits_for(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "_LOCK_TIMEOUT_S", 0.1)
    with opened(store_url) as engine, opened(store_url) as other:
        make_older(engine)
        begin = read_transaction if engine.dialect.name == "postgresql" else write_transaction
        with begin(other) as backup:
            backup.execute(text("SELECT * FROM checkpoints")).all()
            with pytest.raises(ConflictError, match="such as that of a backup"):
                migrate(engine)
        migrate(engine)
        assert current_schema(engine) == newest_schema()


def test_connections_that_find_a_new_file_at_once_all_open_it(tmp_path: Path) -> None:
    def read(url: str) -> None:
        engine = open_engine(url, create=True)
        with read_transaction(engine) as connection:
            connection.exec_driver_sql("SELECT 1")
        engine.dispose()

    with ThreadPoolExecutor(8) as pool:
        for number in range(100):  # few of them meet
            list(pool.map(read, [f"sqlite:///{tmp_path / str(number)}.db"] * 8))


def content_of(engine: Engine) -> dict[str, Any]:
    """Of each table its columns, keys and indexes, and its rows without what is random."""
    found: dict[str, Any] = {}
    with read_transaction(engine) as connection:
        inspector = inspect(connection)
        for name in inspector.get_table_names():
            columns = {
                each["name"]: (str(each["type"]), each["nullable"]) for each in inspector.get_columns(name)
            }
            keys = inspector.get_pk_constraint(name)["constrained_columns"], inspector.get_foreign_keys(name)
            indexes = {
                each["name"]: [str(value) for key, value in each.items() if key != "dialect_options"]
                + [str(value) for value in each.get("dialect_options", {}).values()]
                for each in inspector.get_indexes(name)
            }
            rows = [dict(row) for row in connection.execute(text(f"SELECT * FROM {name}")).mappings()]  # noqa: S608
            for row in rows:
                row |= {key: len(row[key]) for key in ("database_id", "token_key") if key in row}
            found[name] = columns, keys, indexes, rows
    return found


_NEWER_THAN_0027 = (
    "ALTER TABLE policy_versions DROP COLUMN weakens_invariants",
    "ALTER TABLE decision_leaves DROP COLUMN held_by",
    "DROP INDEX changes_by_course",
    "DROP INDEX changes_by_session",
    "CREATE INDEX changes_by_scope ON changes (course_id, session_id)",
    "ALTER TABLE leaves RENAME COLUMN text_macs TO seals",
    "ALTER TABLE erasure_steps RENAME COLUMN new_owner_type TO heir_type",
    "ALTER TABLE erasure_steps RENAME COLUMN new_owner_id TO heir_id",
    "ALTER TABLE holds DROP COLUMN revision",
    *(
        f"ALTER TABLE {each.name} RENAME COLUMN revision TO version"
        for kind, each in ENTITY_TABLES.items()
        if kind not in ("hold", "restriction")
    ),
    "ALTER TABLE policy_shadows RENAME COLUMN sample_rate TO share",
    "ALTER TABLE checkpoints DROP COLUMN published_to",
    "ALTER TABLE checkpoints ADD COLUMN is_published BOOLEAN NOT NULL DEFAULT TRUE",
    "DROP TABLE renames",
    "DROP TABLE restrictions",
    "DROP INDEX policy_shadows_by_course",
    "DROP INDEX policy_shadows_by_end",
    "ALTER TABLE policy_shadows DROP COLUMN course_id",
    "ALTER TABLE policy_shadows DROP COLUMN against_course_number",
    "UPDATE alembic_version SET version_num = '0027'",
)


def make_older(engine: Engine) -> None:
    """Take a database back to the oldest schema that is migrated."""
    with write_transaction(engine) as connection:
        for statement in _NEWER_THAN_0027:
            connection.exec_driver_sql(statement)


def test_no_table_changes_without_a_migration(sqlite_url: str) -> None:
    """An older database of these tests is made from the tables of this version, so it has what a migration
    was forgotten for."""
    engine = open_engine(sqlite_url)
    tables = sorted((name, *shape) for name, (*shape, _) in content_of(engine).items())
    engine.dispose()
    digest = hashlib.sha256(repr(tables).encode()).hexdigest()[:12]
    assert (newest_schema(), digest) == ("0038", "b231639694cc"), (
        "the tables have changed: add a migration in store/migrations/versions, undo it in _NEWER_THAN_0027,"
        " and give the new number and digest here"
    )


def test_a_new_database_is_as_the_migrations_make_it(store_url: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    engine = open_engine(store_url)
    made = content_of(engine)
    make_older(engine)
    assert content_of(engine) != made
    migrate(engine)
    assert content_of(engine) == made
    with read_transaction(engine) as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


def test_the_index_by_end_has_only_memberships_whose_end_means_something(store_url: str) -> None:
    engine = open_engine(store_url)
    [index] = [each for each in inspect(engine).get_indexes("memberships") if "end" in str(each["name"])]
    condition = str(index["dialect_options"][f"{engine.dialect.name}_where"])
    assert all(column in condition for column in ("ends_at", "suspended_until", "status"))
    engine.dispose()


def test_the_holds_of_a_database_from_before_they_were_logged_are_logged(store_url: str) -> None:
    engine = open_engine(store_url)
    make_older(engine)
    placed = "INSERT INTO holds VALUES ('user', 'maya', 'case 12', 'service:dpo', 1600000000000000)"
    with write_transaction(engine) as connection:
        connection.exec_driver_sql(placed)
    engine.dispose()
    store = open_with(store_url)
    hold = Hold(user("maya"), "case 12", "service:dpo", 1_600_000_000_000_000)
    (change,) = store.directory.follow(0, 10).changes
    assert store.personal_data.holds() == (Versioned(hold, change.revision),)
    assert [each.target for each in change.mutations] == [hold]
    assert (change.actor, change.committed_at > hold.since) == ("authz migrate", True)
    assert (read_tree(store_url).faults, read_tree(store_url).records) == ((), 1)
    store.close()


def test_a_database_that_is_too_old_is_refused_and_left_as_it_is(store_url: str) -> None:
    engine = open_engine(store_url)
    with write_transaction(engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0026'"))
    with pytest.raises(AuthzError, match="`0026`, and this version migrates schema `0027` or newer"):
        prepare_store(store_url)
    assert current_schema(engine) == "0026"
    engine.dispose()


def test_a_schema_that_is_not_current_is_refused(empty_url: str) -> None:
    with pytest.raises(AuthzError, match="run `authz migrate`"):
        prepare_store(empty_url, migrate=False)


def test_whoever_has_an_older_schema_is_told_to_back_it_up_first(store_url: str, tmp_path: Path) -> None:
    engine = open_engine(store_url)
    make_older(engine)
    told = "make a backup with the release that you ran so far, then run `authz migrate`"
    with pytest.raises(AuthzError, match=told):
        prepare_store(store_url, migrate=False)
    with pytest.raises(AuthzError, match=told):
        back_up(store_url, tmp_path / "before.db")
    assert current_schema(engine) == "0027"
    engine.dispose()


@pytest.mark.parametrize("migrate", [True, False])
def test_a_database_of_a_newer_release_is_refused_and_left_as_it_is(store_url: str, *, migrate: bool) -> None:
    engine = open_engine(store_url)
    with write_transaction(engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(AuthzError, match="of a newer release than this one") as caught:
        prepare_store(store_url, migrate=migrate)
    assert "restore a backup from before the upgrade" in caught.value.message
    assert caught.value.reason is ErrorReason.PRECONDITION_FAILED
    assert current_schema(engine) == "9999"
    engine.dispose()


@pytest.mark.parametrize(
    ("made", "found"),
    [
        ("CREATE TABLE courses (id INTEGER PRIMARY KEY)", "the table `courses`"),
        ("CREATE TABLE alembic_version AS SELECT '1975ea83b712' AS version_num", "the schema `1975ea83b712`"),
    ],
)
def test_a_database_of_another_program_is_refused_and_left_as_it_is(
    empty_url: str, made: str, found: str
) -> None:
    with opened(empty_url, create=True) as engine:
        with engine.begin() as connection:
            connection.execute(text(made))
        with pytest.raises(AuthzError, match=f"{found} of another program; give this service a database of"):
            prepare_store(empty_url)
        assert len(inspect(engine).get_table_names()) == 1


def test_a_database_that_lost_its_tables_while_it_was_open_is_unavailable(store_url: str) -> None:
    store = open_with(store_url)
    engine = open_engine(store_url)
    with engine.begin() as connection:
        connection.execute(text("DROP TABLE counter"))
    for call in (store.directory.head, lambda: store.directory.follow(0, 1)):
        with pytest.raises(UnavailableError) as raised:
            call()
        assert "counter" in raised.value.__notes__[0]
    engine.dispose()
    store.close()


def test_a_database_that_is_away_is_unavailable_and_says_nothing_of_the_driver() -> None:
    with pytest.raises(UnavailableError) as caught:
        open_with("postgresql://authz:secret@127.0.0.1:1/authz")
    assert caught.value.reason is ErrorReason.STORE_UNAVAILABLE
    assert "secret" not in caught.value.message
    assert "127.0.0.1" not in caught.value.message


def test_an_empty_database_is_left_as_it_is_where_there_was_another(empty_url: str) -> None:
    with pytest.raises(UnavailableError, match="restore"):
        prepare_store(empty_url, create=False)
    with opened(empty_url, create=True) as engine:
        assert current_schema(engine) is None


@pytest.mark.parametrize("url", ["", "mysql://host/name", "sqlite://", "sqlite:///:memory:", "nonsense"])
def test_another_kind_of_url_is_refused(url: str) -> None:
    with pytest.raises(AuthzError) as caught:
        open_engine(url)
    assert caught.value.reason is ErrorReason.MALFORMED_FIELD
