"""What an erasure costs hardly grows with the erasures that there were before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import event, select

from authz.domain.entities import Account
from authz.store import Store, tables
from authz.store.bulk import insert_rows
from authz.store.database.engine import write_transaction
from authz.store.privacy.erasure_steps import Phase
from tests.databases import create_sqlite
from tests.store.directory import create, open_with, user, write
from tests.store.privacy.test_erasures import MAYA, finished
from tests.store.privacy.test_erasures_at_once import begin, next_step

_PER_CALL = 20
"""Instructions of SQLite for each that is counted."""
_MANY = 1000


def add_past_erasures(store: Store, count: int) -> None:
    """Repeat the complete erasure that there is, under other pseudonyms."""
    with write_transaction(store.directory._engine) as connection:
        for table in (tables.ENTITY_TABLES["erasure"], tables.erasure_steps):
            row = dict(connection.execute(select(table)).one()._mapping)
            others = ({"pseudonym_id": f"erased-{number}", "mac": f"mac-{number}"} for number in range(count))
            insert_rows(connection, table, [row | each for each in others])


def cost_of_an_erasure(store: Store) -> int:
    counted = 0

    def count() -> None:
        nonlocal counted
        counted += 1

    def counting(connection: Any, *_: object) -> None:
        connection.connection.driver_connection.set_progress_handler(count, _PER_CALL)

    engine = store.directory._engine
    event.listen(engine, "before_cursor_execute", counting)
    begin(store, MAYA)
    while next_step(store).phase is not Phase.FILES:  # then the file is rewritten, with all rows
        store.personal_data.advance_erasure()
    event.remove(engine, "before_cursor_execute", counting)
    return counted


def test_an_erasure_hardly_looks_at_those_before(tmp_path: Path) -> None:
    costs = []
    for past in (1, _MANY):
        store = open_with(create_sqlite(tmp_path / f"{past}.db"))
        write(store, create(Account(user("ada"))), create(Account(MAYA)))
        begin(store, user("ada"))
        add_past_erasures(finished(store), past)
        costs.append(cost_of_an_erasure(store))
        store.close()
    assert (costs[1] - costs[0]) * _PER_CALL < 25 * _MANY
