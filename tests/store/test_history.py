"""Whatever is written, in whatever order: the tables are what the log says."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from authz.domain.entities import Course, CourseState, Entity, Session
from authz.domain.errors import AuthzError
from authz.domain.ids import course_scope, session_scope
from authz.domain.mutations import Mutation, Operation
from tests.store.directory import notebook, open_with, replay, share, stored, student, write

_NAMES = st.sampled_from(["a", "b"])
_SCOPES = st.builds(course_scope, _NAMES) | st.builds(session_scope, _NAMES)
_ENTITIES: st.SearchStrategy[Entity] = st.one_of(
    st.builds(Course, id=_NAMES, state=st.sampled_from(CourseState)),
    st.builds(Session, id=_NAMES, course_id=st.none() | _NAMES),
    st.builds(student, _NAMES, _NAMES),
    st.builds(notebook, _NAMES, _SCOPES),
    st.builds(share, _NAMES, _NAMES),
)


def _mutation(operation: Operation, entity: Entity) -> Mutation:
    return Mutation(operation, entity.key if operation is Operation.DELETE else entity)


BATCHES = st.lists(st.builds(_mutation, st.sampled_from(Operation), _ENTITIES), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), BATCHES), max_size=12))
def test_the_tables_equal_the_replay_of_the_log(history: list[tuple[bool, list[Mutation]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = open_with(f"sqlite:///{Path(folder) / 'authz.db'}")
        try:
            for atomic, batch in history:
                if not atomic:
                    store.directory.import_batch(batch, offset=0, actor="", request_id="", reason="")
                    continue
                before = stored(store)
                try:
                    write(store, *batch)
                except AuthzError:
                    assert stored(store) == before
            log = store.directory.changes(0, 1000)
            assert [change.revision for change in log] == list(range(1, len(log) + 1))
            assert store.directory.head().revision == len(log)
            assert replay(log) == stored(store)
        finally:
            store.close()
