"""Records of every registered kind: stored, listed, dumped, logged, and deleted with what they are in."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from authz.domain.entities import KINDS, Entity, Kind
from authz.domain.ids import Scope
from authz.domain.mutations import ChangeScope
from authz.domain.ports import Page
from authz.store import Store
from tests.properties import examples
from tests.records import chains, scope_of
from tests.store.directory import changes_of, create, dumped, remove, stored, touch, write


def expected_scope(chain: list[Entity]) -> ChangeScope:
    scopes: list[Scope | None] = [scope_of(entity) for entity in chain]
    ids = {scope.kind.value: scope.id for scope in scopes if scope is not None}
    return ChangeScope(ids.get("course"), ids.get("session"))


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
@settings(examples(6), suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_record_lives_and_goes_with_what_it_is_in(store: Store, kind: Kind, data: st.DataObject) -> None:
    chain = data.draw(chains(kind))
    entity = chain[-1]
    revision = write(store, *(create(each) for each in reversed(chain)))
    assert stored(store, page_size=2) == {each.key: (each, revision) for each in chain}
    assert write(store, touch(entity)) == revision
    with store.directory.dump() as dump:
        assert dumped(dump) == chain
        for name in kind.lookups:
            value = getattr(entity, name)
            assert entity in [*dump.entities(kind, by=name)] or value is None
            assert (value,) in [*dump.values(kind, [name])] or value is None
    write(store, remove(chain[0].key))
    created, deleted = changes_of(store, revision - 1, 2)
    assert [mutation.target for mutation in created.mutations] == chain
    assert [mutation.target for mutation in deleted.mutations] == chain[::-1]
    scopes = tuple(expected_scope(chain[: depth + 1]) for depth in range(len(chain)))
    assert (created.scopes, deleted.scopes) == (scopes, scopes[::-1])
    assert not stored(store, page_size=2)


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
@settings(examples(6), suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_field_of_a_filter_selects(store: Store, kind: Kind, data: st.DataObject) -> None:
    chain = data.draw(chains(kind))
    entity = chain[-1]
    write(store, *map(create, chain))
    wanted = {
        asked.name: (getattr(entity, field.name),) if asked.is_many else getattr(entity, field.name)
        for asked, field in kind.filters
    }
    (found,) = store.directory.read(kind.filter_type(**wanted), Page(9)).items
    assert found.entity == entity
    write(store, remove(chain[0].key))
    assert not store.directory.read(kind.filter_type(**wanted), Page(9)).items
