"""Whatever is written, in whatever order: the tables are what the log says."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from authz.domain.entities import Account, AccountStatus, Course, CourseState, Entity, Session
from authz.domain.errors import AuthzError, ErrorReason
from authz.domain.ids import course_scope, session_scope
from authz.domain.mutations import Change, Expectation, Mutation, Operation, Precondition, WriteRequest
from authz.domain.origin import Origin
from authz.domain.tokens import ConsistencyToken
from authz.store import Store
from tests.databases import create_sqlite
from tests.properties import examples
from tests.store.directory import changes_of, notebook, open_with, replay, share, stored, student, user, write

_NAMES = st.sampled_from(["a", "b"])
_SCOPES = st.builds(course_scope, _NAMES) | st.builds(session_scope, _NAMES)
_ENTITIES: st.SearchStrategy[Entity] = st.one_of(
    st.builds(Course, id=_NAMES, state=st.sampled_from(CourseState)),
    st.builds(Session, id=_NAMES, course_id=st.none() | _NAMES),
    st.builds(student, _NAMES, _NAMES),
    st.builds(notebook, _NAMES, _SCOPES),
    st.builds(share, _NAMES, _NAMES),
    st.builds(Account, subject=_NAMES.map(user), status=st.sampled_from(AccountStatus)),
)


def _mutation(operation: Operation, entity: Entity) -> Mutation:
    return Mutation(operation, entity.key if operation is Operation.DELETE else entity)


BATCHES = st.lists(st.builds(_mutation, st.sampled_from(Operation), _ENTITIES), min_size=1, max_size=6)


_KEYS = st.sampled_from(["", "", "k", "l"])
_CONDITIONS = st.lists(
    st.builds(
        Precondition,
        _ENTITIES.map(lambda entity: entity.key),
        st.sampled_from(Expectation),
        st.integers(0, 4),
    ),
    max_size=1,
)
_WRITES = st.builds(
    lambda mutations, conditions, key: WriteRequest(
        mutations=tuple(mutations), preconditions=tuple(conditions), idempotency_key=key
    ),
    BATCHES,
    _CONDITIONS,
    _KEYS,
)


def _outcome(write: Callable[[], ConsistencyToken]) -> int | ErrorReason:
    try:
        return write().revision
    except AuthzError as error:
        return error.reason


def _but_for_marks(store: Store) -> list[Change]:
    return [msgspec.structs.replace(change, nonce=0) for change in changes_of(store, 0, 1000)]


@examples(30)
@given(st.lists(st.tuples(st.booleans(), BATCHES), max_size=12))
def test_the_tables_equal_the_replay_of_the_log(history: list[tuple[bool, list[Mutation]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = open_with(create_sqlite(Path(folder) / "authz.db"))
        try:
            for atomic, batch in history:
                if not atomic:
                    store.directory.import_batch(batch, offset=0, origin=Origin(""))
                    continue
                before = stored(store)
                try:
                    write(store, *batch)
                except AuthzError:
                    assert stored(store) == before
            log = changes_of(store, 0, 1000)
            assert [change.revision for change in log] == list(range(1, len(log) + 1))
            assert store.directory.head().revision == len(log)
            assert replay(log) == stored(store)
        finally:
            store.close()


@examples(30)
@given(st.lists(st.lists(_WRITES, max_size=8), max_size=4))
def test_a_group_does_what_its_writes_would_do_one_after_another(groups: list[list[WriteRequest]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        together, alone = (open_with(create_sqlite(Path(folder) / name)) for name in ("a.db", "b.db"))
        try:
            for group in groups:
                outcomes = [
                    each.reason if isinstance(each, AuthzError) else each.revision
                    for each in together.directory.write_group(group)
                ]
                assert outcomes == [_outcome(partial(alone.directory.write, each)) for each in group]
            assert _but_for_marks(together) == _but_for_marks(alone)
            assert stored(together) == stored(alone) == replay(changes_of(together, 0, 1000))
        finally:
            together.close()
            alone.close()
