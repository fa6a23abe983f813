"""Statements that are sent together: stored as others are, and awaited once."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import insert, select, text

from authz.domain.errors import InvalidArgumentError
from authz.store import tables
from authz.store.database.engine import opened, write_transaction
from authz.store.database.sending import sent_together

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
