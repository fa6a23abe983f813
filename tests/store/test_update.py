"""Updates of single fields, on each database and for every registered kind."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from authz.domain.entities import (
    KINDS,
    Course,
    CourseKey,
    CourseState,
    Key,
    Kind,
    Membership,
    MembershipStatus,
    Session,
    SessionKey,
    Visibility,
)
from authz.domain.errors import AuthzError, ErrorReason, FailedPreconditionError, InvalidArgumentError
from authz.domain.ids import ResourceRef, course_scope, session_scope
from authz.domain.mutations import ImportFault, Mutation, Operation, update
from authz.domain.origin import Origin
from authz.domain.ports import Page
from authz.store import Store
from tests.properties import examples
from tests.records import chains, fits, is_valid, values
from tests.store.directory import changes_of, create, notebook, stored, user, write

MAYA = Membership(
    subject=user("maya"),
    scope=course_scope("c"),
    role="student",
    ends_at=9,
    source="roster",
    source_ref="e-1",
)


@pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
@settings(examples(8), suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_an_update_changes_the_fields_that_it_names_and_no_other(
    store: Store, kind: Kind, data: st.DataObject
) -> None:
    chain = data.draw(chains(kind))
    entity = chain[-1]
    names = data.draw(st.lists(st.sampled_from(sorted(kind.updatable)), min_size=1, unique=True))
    given_values = {name: data.draw(values(kind.updatable[name])) for name in names}
    after = msgspec.structs.replace(entity, **given_values)
    # Everything is drawn before anything is written: an example may be given up while it is drawn.
    first = write(store, *map(create, chain))
    outer = chain[-2] if len(chain) > 1 else None
    is_possible = is_valid(after) and (outer is None or fits(after, outer))
    if is_possible and getattr(after, "awaits_membership", True):  # no chain has a membership for a share
        revision = write(store, update(entity.key, **given_values))
        (found,) = store.directory.read(kind.filter_type(), Page(2)).items
        assert (found.entity, found.revision) == (after, revision)
        logged = [mutation for change in changes_of(store, first, 9) for mutation in change.mutations]
        assert logged == ([] if after == entity else [Mutation(Operation.TOUCH, after, before=entity)])
    write(store, Mutation(Operation.DELETE, chain[0].key))


def test_an_update_of_one_field_keeps_dates_and_sources(store: Store) -> None:
    write(store, create(Course(id="c", state=CourseState.ACTIVE)), create(MAYA))
    write(
        store,
        update(CourseKey("c"), ai_enabled=True),
        update(MAYA.key, status=MembershipStatus.SUSPENDED),
    )
    assert [entity for entity, _ in stored(store).values()] == [
        Course(id="c", state=CourseState.ACTIVE, ai_enabled=True),
        msgspec.structs.replace(MAYA, status=MembershipStatus.SUSPENDED),
    ]


def test_an_update_of_what_is_not_there_is_refused_and_writes_nothing(store: Store) -> None:
    with pytest.raises(FailedPreconditionError, match="does not exist, so it cannot be updated") as caught:
        write(store, create(Course(id="c")), update(MAYA.key, ends_at=None))
    assert caught.value.reason is ErrorReason.PRECONDITION_FAILED
    assert caught.value.metadata == {"key": str(MAYA.key)}
    assert not stored(store)


def test_an_update_is_applied_after_what_the_same_write_creates_around_it(store: Store) -> None:
    write(store, create(Course(id="c")), create(MAYA))
    other = msgspec.structs.replace(MAYA, subject=user("omar"))
    assert (
        write(store, update(MAYA.key, ends_at=10), create(other), update(CourseKey("c"), ai_enabled=True))
        == 2
    )
    assert {revision for _, revision in stored(store).values()} == {2}


REFUSED: list[tuple[Key, dict[str, object], str]] = [
    (SessionKey("s"), {"starts_at": 9}, "ends_at"),
    (CourseKey("c"), {"edit_window_us": -1}, "edit_window"),
    (ResourceRef("notebook", "n"), {"visibility": Visibility.COURSE}, "resource.visibility"),
    (ResourceRef("notebook", "n"), {"owner": user("")}, "owner id"),
    (ResourceRef("notebook", "n"), {"scope": course_scope("c")}, "update_mask"),
    (SessionKey("s"), {"course_id": "c"}, "update_mask"),
    (SessionKey("s"), {"id": "t"}, "update_mask"),
    (CourseKey("c"), {"staet": CourseState.ACTIVE}, "update_mask"),
    (CourseKey("c"), {"state": None}, "state"),
    (CourseKey("c"), {}, "update_mask"),
]


def test_an_update_that_leads_to_no_valid_record_is_refused(store: Store) -> None:
    alone = Session(id="s", starts_at=1, ends_at=9)
    write(store, create(Course(id="c")), create(alone), create(notebook("n", session_scope("s"))))
    for key, given_values, field in REFUSED:
        with pytest.raises(InvalidArgumentError) as caught:
            write(store, update(key, **given_values))
        assert caught.value.metadata["field"] == field, key
        assert {revision for _, revision in stored(store).values()} == {1}


def test_an_import_updates_and_reports_what_it_cannot(store: Store) -> None:
    write(store, create(Course(id="c")), create(MAYA))
    batch = [
        update(CourseKey("none"), ai_enabled=True),
        update(MAYA.key, ends_at=10),
        update(CourseKey("c"), ai_enabled=False),
    ]
    done = store.directory.import_batch(batch, offset=0, origin=Origin("test"))
    assert (done.written, done.unchanged) == (1, 1)
    assert [(fault.position, fault.reason) for fault in done.faults] == [(0, "PRECONDITION_FAILED")]
    assert isinstance(done.faults[0], ImportFault)
    assert stored(store)[MAYA.key] == (msgspec.structs.replace(MAYA, ends_at=10), 2)


def test_a_repeated_key_with_another_value_is_another_write(store: Store) -> None:
    write(store, create(Course(id="c")))
    enable = update(CourseKey("c"), ai_enabled=True)
    assert write(store, enable, idempotency_key="k") == write(store, enable, idempotency_key="k") == 2
    with pytest.raises(AuthzError) as caught:
        write(store, update(CourseKey("c"), ai_enabled=False), idempotency_key="k")
    assert caught.value.reason is ErrorReason.IDEMPOTENCY_KEY_REUSED
