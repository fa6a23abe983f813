"""The default codec, with a kind that nothing registers: it is found by a field that can change."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import lmdb
import msgspec
import pytest

from authz.domain.ids import PLATFORM, Scope, Subject, course_scope, parse_subject
from authz.domain.kinds.kind import Filter, Kind, RecordKey
from authz.replica.codec import Codec, Databases
from authz.replica.layout import scope_key, subject_key

MAYA = parse_subject("user:maya")


class SeatKey(RecordKey, frozen=True, tag="seat_key"):
    """Identifies a seat."""

    subject: Subject


class Seat(msgspec.Struct, frozen=True, tag_field="kind", tag="seat"):
    """Where a subject sits."""

    subject: Subject
    scope: Scope | None = None
    is_reserved: bool = False

    @property
    def key(self) -> SeatKey:
        """Its identity."""
        return SeatKey(self.subject)


class SeatFilter(Filter[Seat], frozen=True):
    """All seats."""


SEAT = Kind(Seat, SeatKey, SeatFilter, key_order=("subject",), lookups=("scope",))


@pytest.mark.parametrize("covering", ["", "scope"])
def test_a_record_moves_in_its_index_and_leaves_nothing_behind(tmp_path: Path, covering: str) -> None:
    codec = Codec(SEAT, covering=covering)
    assert codec.database == "seats"
    (index,) = codec.indexes
    assert index.database == "seats_by_scope"
    environment = lmdb.open(str(tmp_path), max_dbs=2)
    names = {name: environment.open_db(name.encode()) for name in (codec.database, index.database)}

    def found() -> tuple[list[Seat], list[bytes]]:
        with environment.begin() as transaction:
            records = {bytes(k): bytes(v) for k, v in transaction.cursor(names["seats"])}
            seats = [codec.read(key, record) for key, record in records.items()]
            keys = [bytes(key) for key, _ in transaction.cursor(names["seats_by_scope"])]
            values = {bytes(value) for _, value in transaction.cursor(names["seats_by_scope"])}
            assert values == ({*records.values()} if covering and keys else {b""} if keys else set())
            return seats, keys

    def put(seat: Seat) -> None:
        with environment.begin(write=True) as transaction:
            codec.put(Databases(transaction, names), seat)

    for scope, is_reserved in product((course_scope("a"), course_scope("b"), PLATFORM), (True, False)):
        seat = Seat(MAYA, scope, is_reserved=is_reserved)
        put(seat)
        assert found() == ([seat], [scope_key(scope) + subject_key(MAYA)])
    put(Seat(MAYA))
    assert found() == ([Seat(MAYA)], [])
    put(Seat(MAYA, PLATFORM))
    with environment.begin(write=True) as transaction:
        codec.remove(Databases(transaction, names), Seat(MAYA, PLATFORM))
    assert found() == ([], [])
    environment.close()


def test_an_index_has_each_value_once_and_only_where_there_is_one() -> None:
    rows = [(PLATFORM, MAYA), (PLATFORM, MAYA), (course_scope("a"), MAYA)]
    key = subject_key(MAYA)
    for covering, value in (("", b""), ("scope", b"record")):
        (index,) = Codec(SEAT, covering=covering).indexes
        expected = [(scope_key(scope) + key, value) for scope in (PLATFORM, course_scope("a"))]
        assert [*index.pairs(rows, {key: b"record"}.__getitem__)] == expected


def test_the_keys_before_a_key_are_deleted_and_given_in_order(tmp_path: Path) -> None:
    environment = lmdb.open(str(tmp_path), max_dbs=1)
    names = {"seats": environment.open_db(b"seats")}
    with environment.begin(write=True) as transaction:
        databases = Databases(transaction, names)
        for key in (b"c", b"a", b"d", b"b"):
            databases.put("seats", key)
        assert [*databases.pop_keys_before("seats", b"c")] == [b"a", b"b"]
        assert [*databases.pop_keys_before("seats", b"c")] == []
        assert [bytes(key) for key, _ in transaction.cursor(names["seats"])] == [b"c", b"d"]
    environment.close()
