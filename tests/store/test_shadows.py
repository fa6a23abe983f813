"""Shadows on each database: one for the platform and each course, with what all processes have counted."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec
import pytest

from authz.domain.entities import Account, Course
from authz.domain.erasures import ErasureRequest
from authz.domain.errors import ErrorReason, FailedPreconditionError
from authz.domain.exports import ExportedEntry
from authz.domain.ids import ResourceRef, Subject, course_scope
from authz.domain.mutations import Mutation, Operation
from authz.domain.origin import Origin
from authz.domain.shadow import (
    MAX_CELLS,
    MAX_COURSE_SHADOWS,
    PolicyShadow,
    ShadowCell,
    ShadowCount,
    ShadowExample,
    ShadowTally,
)
from authz.store import Store
from tests.store.directory import touch, user, write

SHADOW = PolicyShadow(
    id="one",
    draft_id="mine",
    files='{"default.csv":""}',
    against_number=3,
    sample_rate=0.01,
    budget_us=10_000,
    author="ada",
    started_at=100,
    ends_at=200,
)
TOLD = msgspec.structs.replace(SHADOW, files="")


def cell(number: int) -> ShadowCell:
    return ShadowCell(("student",), "material", f"a{number}", gains=True)


def test_one_is_kept_until_another_is_started_after_its_end(store: Store) -> None:
    shadows = store.shadows
    assert (shadows.running(0), shadows.read(), shadows.files("one")) == ((), None, None)
    shadows.start(SHADOW)
    assert (shadows.running(199), shadows.files("one")) == ((TOLD,), SHADOW.files)
    with pytest.raises(FailedPreconditionError, match="a shadow is running") as caught:
        shadows.start(msgspec.structs.replace(SHADOW, id="two", started_at=199, ends_at=300))
    assert caught.value.reason is ErrorReason.PRECONDITION_FAILED
    shadows.stop(150)
    with pytest.raises(FailedPreconditionError, match="nothing to stop"):
        shadows.stop(150)
    assert shadows.read() == (msgspec.structs.replace(TOLD, ends_at=150), ShadowTally())
    shadows.start(msgspec.structs.replace(SHADOW, id="two", started_at=150, ends_at=300))
    assert shadows.files("one") is None
    shadows.add("one", ShadowTally(compared=1))
    found = shadows.read()
    assert found is not None
    assert (found[0].id, found[1]) == ("two", ShadowTally())
    shadows.delete_ended(299)
    assert shadows.running(299)
    shadows.delete_ended(300)
    assert shadows.read() is None


def of_course(number: int, **changes: Any) -> PolicyShadow:
    course = {"id": f"c{number}", "scope": course_scope(f"c{number}"), "against_course_number": number}
    return msgspec.structs.replace(SHADOW, **course | changes)


def test_the_platform_and_each_course_have_a_shadow_of_their_own(store: Store) -> None:
    shadows = store.shadows
    for each in (SHADOW, of_course(1), of_course(2)):
        shadows.start(each)
    assert {each.id for each in shadows.running(100)} == {"one", "c1", "c2"}
    with pytest.raises(FailedPreconditionError, match="`authz policy shadow stop --course c1`"):
        shadows.start(of_course(1, id="again"))
    shadows.add("c1", ShadowTally(compared=1))
    shadows.stop(150, course_scope("c1"))
    told = of_course(1, files="", ends_at=150)
    assert shadows.read(course_scope("c1")) == (told, ShadowTally(compared=1))
    assert shadows.read() == (TOLD, ShadowTally())
    shadows.start(of_course(1, id="again", started_at=150))
    assert shadows.files("c1") is None
    assert {each.id for each in shadows.running(160)} == {"one", "c2", "again"}


def test_the_courses_with_a_running_shadow_are_bounded_and_do_not_stop_the_platform(store: Store) -> None:
    for number in range(MAX_COURSE_SHADOWS):
        store.shadows.start(of_course(number))
    with pytest.raises(FailedPreconditionError, match="10 other courses have a running shadow"):
        store.shadows.start(of_course(MAX_COURSE_SHADOWS))
    store.shadows.start(SHADOW)
    store.shadows.stop(150, course_scope("c3"))
    store.shadows.start(of_course(MAX_COURSE_SHADOWS, started_at=150))


def test_a_shadow_goes_with_its_course(store: Store) -> None:
    write(store, *(touch(Course(id=each)) for each in ("c1", "c2")))
    for number in (1, 2):
        store.shadows.start(of_course(number))
    write(store, Mutation(Operation.DELETE, Course(id="c1")))
    assert [each.id for each in store.shadows.running(100)] == ["c2"]


def test_what_processes_add_at_once_is_all_counted(store: Store) -> None:
    store.shadows.start(SHADOW)
    added = ShadowTally(compared=2, differing=1, last_failure="why", cells=(ShadowCount(cell(1), 1),))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: store.shadows.add("one", added), range(20)))
    found = store.shadows.read()
    assert found is not None
    assert found[1] == ShadowTally(
        compared=40, differing=20, last_failure="why", cells=(ShadowCount(cell(1), 20),)
    )


def test_the_cells_that_are_kept_are_bounded(store: Store) -> None:
    store.shadows.start(SHADOW)
    for first in (0, MAX_CELLS - 1):
        cells = tuple(ShadowCount(cell(first + number), 1) for number in range(MAX_CELLS))
        store.shadows.add("one", ShadowTally(differing=MAX_CELLS, cells=cells))
    found = store.shadows.read()
    assert found is not None
    counts = dict(found[1].cells)
    assert (found[1].differing, len(counts), counts[cell(MAX_CELLS - 1)]) == (2 * MAX_CELLS, MAX_CELLS, 2)


def example(subject: Subject) -> ShadowExample:
    return ShadowExample(
        cell=cell(1),
        subject=subject,
        resource=ResourceRef("material", "m"),
        scope=course_scope("a"),
        purpose="",
        at=150,
        facts=(),
        active=None,
        candidate=None,
    )


def test_examples_about_a_person_are_exported_and_go_when_the_person_is_erased(store: Store) -> None:
    maya, omar = user("maya"), user("omar")
    write(store, *(touch(Account(each)) for each in (maya, omar)))
    store.shadows.start(SHADOW)
    store.shadows.add("one", ShadowTally(examples=(example(maya), example(omar))))
    with store.personal_data.export(maya) as export:
        told = [each.text for each in export.items() if isinstance(each, ExportedEntry)]
    assert told == ["asked about user:maya: a1 material:m in course:a: student gains a1 on material"]
    store.personal_data.begin_erasure(ErasureRequest(subject=maya, origin=Origin(reason="asked for")))
    while store.personal_data.erasure_progress() is not None:
        store.personal_data.advance_erasure()
    store.shadows.add("one", ShadowTally(compared=1, examples=(example(maya),)))
    found = store.shadows.read()
    assert found is not None
    assert (found[1].compared, [each.subject for each in found[1].examples]) == (1, [omar])
