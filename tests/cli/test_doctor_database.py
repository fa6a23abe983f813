"""`authz doctor` names what a server would meet at its database, also what it would meet only later."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from authz.runtime.doctor import findings
from authz.runtime.settings import Settings
from authz.store.database.engine import opened
from tests.pooler import pooled


def told(url: str) -> list[str]:
    """What is found about a database."""
    return [each.text for each in findings(Settings(database_url=url)) if "the database" in each.text]


def test_a_pooler_that_mixes_up_prepared_statements_is_found(postgresql_url: str) -> None:
    assert told(postgresql_url) == []
    with pooled(postgresql_url) as url:
        (found,) = told(url)
    assert "mixes up prepared statements; set PgBouncer's `pool_mode` to `session`" in found


@pytest.mark.parametrize("made", ["courses", "alembic_version"])
def test_a_database_of_another_program_is_found_and_is_not_to_be_migrated(empty_url: str, made: str) -> None:
    with opened(empty_url, create=True) as engine, engine.begin() as connection:
        connection.execute(text(f"CREATE TABLE {made} AS SELECT '1975ea83b712' AS version_num"))
    (found,) = told(empty_url)
    assert "of another program; give this service a database of its own" in found
