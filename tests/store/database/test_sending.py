"""Statements that are sent together: stored as others are, and awaited once."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import insert, select, text

from authz.domain.entities import Course
from authz.domain.errors import InvalidArgumentError
from authz.domain.origin import Origin
from authz.store import tables
from authz.store.database.engine import opened, write_transaction
from authz.store.database.sending import sent_together
from authz.store.database.timed_connection import TimedConnection
from tests.store.directory import open_with, touch, write

_ADD = insert(tables.tombstones)
_STORED = select(tables.tombstones.c.id).order_by(tables.tombstones.c.id)


def _values(id_: str) -> dict[str, Any]:
    return {"type": "material", "id": id_, "deleted_at": 1}


def test_all_of_them_are_stored(store_url: str) -> None:
    with opened(store_url) as engine:
        with write_transaction(engine) as connection, sent_together(connection) as sender:
            for id_ in ("m1", "m2", "m3"):
                sender.execute(_ADD, _values(id_))
        with engine.connect() as connection:
            assert connection.scalars(_STORED).all() == ["m1", "m2", "m3"]


def test_postgresql_is_not_awaited_before_the_end_which_tells_a_fault_of_one(postgresql_url: str) -> None:
    sent = 0
    with opened(postgresql_url) as engine:
        with (
            pytest.raises(InvalidArgumentError, match="text that the database cannot store"),
            write_transaction(engine) as connection,
            sent_together(connection) as sender,
        ):
            sender.execute(_ADD, _values("m1"))
            sender.execute(text("SELECT '[\"\\u0000\"]'::jsonb ->> 0"))  # only the server finds this fault
            sent += 1
        with engine.connect() as connection:
            assert connection.scalars(_STORED).all() == []
    assert sent == 1


def test_a_write_and_an_import_that_change_nothing_wait_for_no_answer_more(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[object] = []

    def counted(connection: TimedConnection) -> Any:
        begun.append(connection)
        return pipeline(connection)

    pipeline = TimedConnection.pipeline
    monkeypatch.setattr(TimedConnection, "pipeline", counted)
    store, same = open_with(postgresql_url), touch(Course(id="c"))
    for sent in (1, 0):
        begun.clear()
        write(store, same)
        assert len(begun) == sent
        store.directory.import_batch([same], offset=0, origin=Origin())
        assert len(begun) == sent
    store.close()
