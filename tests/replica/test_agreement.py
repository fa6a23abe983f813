"""After any history, a replica that followed, one built from a snapshot, and the database agree."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from authz.domain.effective_roles import MembershipTerms
from authz.domain.entities import Entity, Membership, Resource, Session, Share, kind_of
from authz.domain.ids import Scope
from authz.domain.mutations import Mutation, Operation
from authz.domain.origin import Origin
from authz.replica.environment import acquire_environment, release_environment
from authz.replica.generations import build_replica
from authz.replica.writer import apply_changes
from authz.store import Store
from tests.databases import create_sqlite
from tests.facts import terms_of
from tests.properties import examples
from tests.replica.conftest import MAX_BYTES
from tests.replica.rows import Row, all_rows
from tests.store.directory import changes_of, dumped, open_with
from tests.store.log.test_history import BATCHES


def expected(entities: Iterable[Entity]) -> set[Row]:
    """The rows that a replica of these entities has."""
    entities = list(entities)
    # The shares of a deleted resource may outlive it for a while.
    resources = {entity.key for entity in entities if isinstance(entity, Resource)}
    rows: set[Row] = set()
    memberships: dict[tuple[object, Scope], list[MembershipTerms]] = {}
    for entity in entities:
        if isinstance(entity, Membership):
            memberships.setdefault((entity.subject, entity.scope), []).append(terms_of(entity))
            rows.add(("member in", entity.scope, entity.subject))
            continue
        rows.add((kind_of(entity).name, entity.key, entity))
        match entity:
            case Session(course_id=str()):
                rows.add(("session in", entity.course_id, entity.id))
            case Resource():
                rows.add(("resource in", entity.scope, entity.key))
                if entity.owner is not None:
                    rows.add(("resource of", entity.owner, entity.key))
            case Share():
                rows.add(("share with", entity.subject, entity.resource))
                if entity.resource in resources:
                    rows.add(("shared", entity.resource, None))
    for place, held in memberships.items():
        rows.add(("memberships", place, tuple(sorted(held, key=lambda membership: membership.role))))
    return rows


def tombstones(store: Store) -> set[Row]:
    """The rows of the resources that the log deleted and did not bring back."""
    gone: dict[object, bool] = {}
    revision = 0
    while changes := changes_of(store, revision, 1000):  # fewer, if they are large
        for mutation in chain.from_iterable(change.mutations for change in changes):
            if isinstance(mutation.target, Resource):
                gone[mutation.key] = mutation.operation is Operation.DELETE
        revision = changes[-1].revision
    return {("tombstone", ref, None) for ref, is_gone in gone.items() if is_gone}


def built(store: Store, folder: Path) -> list[Row]:
    """The rows of a replica built from what the store holds now."""
    with store.directory.dump() as dump:
        build_replica(folder, dump, max_bytes=MAX_BYTES)
    environment = acquire_environment(folder, max_bytes=MAX_BYTES)
    try:
        return list(all_rows(environment))
    finally:
        release_environment(environment)


def followed(store: Store, folder: Path, at_once: int) -> list[Row]:
    """The rows of a replica of an empty database that took in the whole log, and is then at its head."""
    environment = acquire_environment(folder, max_bytes=MAX_BYTES)
    try:
        revision = 0
        while changes := changes_of(store, revision, at_once):
            revision = apply_changes(environment, changes)
        assert environment.state() == store.directory.head()
        return list(all_rows(environment))
    finally:
        release_environment(environment)


@examples(40)
@given(st.lists(BATCHES, max_size=10), st.integers(1, 5), st.sampled_from([0, 1, 500]))
def test_followed_built_and_stored_agree_row_by_row(
    history: list[list[Mutation]], at_once: int, contents_at_once: int
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = open_with(create_sqlite(folder / "authz.db"), contents_at_once=contents_at_once)
        try:
            built(store, folder / "followed")
            for batch in history:
                store.directory.import_batch(batch, offset=0, origin=Origin(""))
                store.directory.remove_contents()
            with store.directory.dump() as dump:
                rows = expected(dumped(dump)) | tombstones(store)
            mine = followed(store, folder / "followed", at_once)
            assert mine == built(store, folder / "built")
            assert len(mine) == len(rows)
            assert set(mine) == rows
        finally:
            store.close()
