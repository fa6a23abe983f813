"""Records of every registered kind in a replica: the same built and followed, and gone when deleted."""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from authz.domain.entities import KINDS, Entity, Kind, Resource, kind_of
from authz.domain.mutations import Change
from authz.replica.environment import acquire_environment, release_environment
from authz.replica.generations import build_replica
from authz.replica.kinds import CODECS, TOMBSTONES, TOMBSTONES_BY_AGE
from authz.replica.layout import number_key, ref_key
from authz.replica.writer import apply_changes
from authz.store import Store
from tests.databases import create_sqlite
from tests.properties import examples
from tests.records import chains, entities, fits
from tests.replica.conftest import MAX_BYTES
from tests.store.directory import changes_of, create, open_with, remove, touch, write

WHOLE = sorted(CODECS.keys() - {"membership"})
"""The kinds of which the replica has every field: of a membership it leaves out the source."""


@pytest.mark.parametrize("name", WHOLE)
@examples(30)
@given(data=st.data())
def test_a_record_reads_back(name: str, data: st.DataObject) -> None:
    entity, codec = data.draw(entities(KINDS[name])), CODECS[name]
    assert codec.read(codec.key_of(entity), codec.record_of(entity, b"")) == entity


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
@examples(6)
@given(data=st.data())
def test_a_record_is_there_built_or_followed_and_goes_when_it_is_deleted(
    kind: Kind, data: st.DataObject
) -> None:
    chain = data.draw(chains(kind))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = open_with(create_sqlite(folder / "authz.db"))
        try:
            nothing = built(store, folder / "followed")
            write(store, *map(create, chain))
            both = built(store, folder / "built")
            assert both[CODECS[kind.name].database]
            assert followed(store, folder / "followed", after=0) == both
            write(store, touch(data.draw(others(chain))))
            assert followed(store, folder / "followed", after=1) == built(store, folder / "touched")
            write(store, remove(chain[0].key))
            head = store.directory.head().revision
            assert not any(nothing.values())
            left = followed(store, folder / "followed", after=head - 1)
            assert left == built(store, folder / "deleted")
            at = number_key(store.directory.head().committed_at)
            gone = [ref_key(each.key) for each in chain if isinstance(each, Resource)]
            tombstones = {TOMBSTONES: [(key, at) for key in gone]}
            assert left == nothing | tombstones | {TOMBSTONES_BY_AGE: [(at + key, b"") for key in gone]}
        finally:
            store.close()


def others(chain: list[Entity]) -> st.SearchStrategy[Entity]:
    """What may be written in place of the last."""
    *outer, entity = chain
    kind = kind_of(entity)
    fixed = msgspec.structs.asdict(entity.key)
    if kind.container is not None:
        fixed[kind.container.field] = getattr(entity, kind.container.field)
    return entities(kind, fixed).filter(lambda other: not outer or fits(other, outer[-1]))


def built(store: Store, folder: Path) -> dict[str, list[tuple[bytes, bytes]]]:
    """All records of a new replica."""
    with store.directory.dump() as dump:
        build_replica(folder, dump, max_bytes=MAX_BYTES)
    return contents(folder, ())


def followed(store: Store, folder: Path, after: int) -> dict[str, list[tuple[bytes, bytes]]]:
    """All records of a replica that has followed the log to its end."""
    return contents(folder, changes_of(store, after, 10))


def contents(folder: Path, changes: tuple[Change, ...]) -> dict[str, list[tuple[bytes, bytes]]]:
    """All that is in the databases of records, after these changes."""
    environment = acquire_environment(folder, max_bytes=MAX_BYTES)
    try:
        apply_changes(environment, changes)
        with environment.lmdb.begin() as transaction:
            return {
                name: [(bytes(key), bytes(value)) for key, value in transaction.cursor(database)]
                for name, database in environment.databases.items()
            }
    finally:
        release_environment(environment)
