"""An erasure goes on wherever it was interrupted, and takes no bystander with it."""

from __future__ import annotations

import msgspec
import pytest

from authz.domain.decision_log import DecisionQuery
from authz.domain.entities import (
    Account,
    Course,
    CourseFilter,
    CourseKey,
    Entity,
    ErasureFilter,
    ErasureStatus,
    Membership,
    MembershipFilter,
    MembershipKey,
    PolicyVersion,
    Resource,
    ResourceFilter,
    Share,
    ShareFilter,
    ShareLevel,
    Visibility,
)
from authz.domain.erasures import ErasureRequest, RenameRequest
from authz.domain.errors import ConflictError, FailedPreconditionError, InvalidArgumentError, OutOfRangeError
from authz.domain.exports import ExportedEntry, ExportSection
from authz.domain.ids import ResourceRef, course_scope
from authz.domain.mutations import Mutation, WriteRequest
from authz.domain.origin import Origin
from authz.domain.ports import Page
from authz.domain.tokens import ConsistencyToken
from authz.store import Store, open_store
from tests.store.directory import VOCABULARY, Clock, create, hold, open_with, remove, touch, user
from tests.store.log.test_decisions import ENTRY

MAYA, STU = user("maya"), user("stu")
COURSES = [f"c{number}" for number in range(3)]
REQUEST = ErasureRequest(subject=MAYA, origin=Origin("service:dpo", "request 17"), orphans=True)


def notebook(course: str, owner: str) -> Resource:
    scope = course_scope(course)
    return Resource(
        "notebook", f"{owner}-{course}", scope=scope, owner=user(owner), visibility=Visibility.PRIVATE
    )


def fill(store: Store) -> None:
    for course in COURSES:
        scope = course_scope(course)
        records: list[Entity] = [
            Course(course),
            Membership(MAYA, scope, "student"),
            Membership(STU, scope, "student"),
            notebook(course, "maya"),
            notebook(course, "stu"),
            Share(ResourceRef("notebook", f"stu-{course}"), MAYA, ShareLevel.VIEWER),
        ]
        write(store, *map(create, records))
    write(store, create(Account(MAYA)))


def write(store: Store, *mutations: Mutation) -> ConsistencyToken:
    return store.directory.write(WriteRequest(mutations=mutations, origin=Origin("service:x for user:maya")))


def of_stu(store: Store) -> list[object]:
    page, filters = Page(100, ""), (CourseFilter(), MembershipFilter(subject=STU), ResourceFilter(owner=STU))
    return [each.entity for wanted in filters for each in store.directory.read(wanted, page).items]


def log_of(store: Store) -> str:
    return repr(store.directory.follow(0, 1000).changes)


def test_an_erasure_that_is_interrupted_after_every_step_is_completed(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authz.store.privacy.erase_history.CHANGES_SEARCHED", 1)
    first = open_with(store_url)
    fill(first)
    revisions = first.directory.head().revision
    before, begun = of_stu(first), first.directory.head()
    pseudonym = first.personal_data.begin_erasure(REQUEST)
    first.close()
    steps, is_left = 0, True
    while is_left:
        store = open_with(store_url, contents_at_once=3)
        with pytest.raises(FailedPreconditionError, match="user:maya was erased"):
            write(store, touch(Account(MAYA)))
        store.personal_data.advance_erasure()
        is_left = store.personal_data.erasure_progress() is not None
        assert of_stu(store) == before
        store.close()
        steps += 1
    assert steps > 7 + revisions / 2  # each searches a revision, or two
    store = open_with(store_url)
    certificate = store.personal_data.certificate(pseudonym)
    assert certificate.erasure.status is ErasureStatus.COMPLETE
    assert certificate.removed["membership records deleted"] == len(COURSES)
    assert certificate.removed["share records deleted"] == len(COURSES)
    assert certificate.removed["resource records left without an owner"] == len(COURSES)
    assert "user:maya" not in log_of(store)
    assert store.directory.follow(begun.revision, 1).after is None
    for wanted in (MembershipFilter(subject=MAYA), ShareFilter(subject=MAYA), ResourceFilter(owner=MAYA)):
        assert store.directory.read(wanted, Page(10, "")).items == ()
    store.close()


def test_two_processes_that_go_on_with_one_erasure_do_each_step_once(store_url: str) -> None:
    one, other = open_with(store_url, contents_at_once=2), open_with(store_url, contents_at_once=2)
    fill(one)
    pseudonym = one.personal_data.begin_erasure(REQUEST)
    while one.personal_data.erasure_progress() is not None:
        one.personal_data.advance_erasure()
        other.personal_data.advance_erasure()
    removed = other.personal_data.certificate(pseudonym).removed
    assert removed["membership records deleted"] == len(COURSES)
    assert [each.entity.status for each in one.directory.read(ErasureFilter(), Page(10, "")).items] == [
        ErasureStatus.COMPLETE
    ]
    one.close()
    other.close()


@pytest.mark.parametrize("log_is_ahead", [False, True])
def test_readers_of_the_log_have_time_to_read_what_was_deleted(store_url: str, log_is_ahead: bool) -> None:
    clock, ahead = Clock(), Clock()
    store = open_store(store_url, vocabularies=lambda *_: VOCABULARY, clock=clock, erasure_grace_s=10)
    fill(store)
    if log_is_ahead:
        ahead.now += 3_600_000_000
        other = open_with(store_url, ahead)
        write(other, create(Course("ahead")))
        other.close()
    before = store.directory.head()
    store.personal_data.begin_erasure(REQUEST)
    for _ in range(4):
        store.personal_data.advance_erasure()
    tail = store.directory.follow(before.revision, 1000)
    assert tail.after == before
    deleted = [str(each.key) for change in tail.changes for each in change.mutations]
    assert "account of user:maya" in deleted
    clock.now += 10_000_000
    store.personal_data.advance_erasure()
    assert store.directory.follow(before.revision, 1000).after is None
    store.close()


def test_the_log_is_emptied_once_nobody_reads_an_old_state(sqlite_url: str) -> None:
    store = open_with(sqlite_url)
    fill(store)
    pseudonym = store.personal_data.begin_erasure(REQUEST)
    with store.personal_data.export(STU) as export:
        next(export.items())
        with pytest.raises(ConflictError, match="reads an old state"):
            while store.personal_data.erasure_progress() is not None:
                store.personal_data.advance_erasure()
    store.personal_data.advance_erasure()
    assert store.personal_data.certificate(pseudonym).erasure.status is ErasureStatus.COMPLETE
    store.close()


def test_a_person_whose_id_begins_with_that_of_the_erased_one_stays(store_url: str) -> None:
    store = open_with(store_url)
    fill(store)
    namesake = user("maya.2")
    write(store, create(Membership(namesake, course_scope("c0"), "student", source_ref="sis 4")))
    store.directory.write(
        WriteRequest(
            mutations=(touch(Account(namesake)),), origin=Origin("service:x for user:maya.2", "asked")
        )
    )
    store.personal_data.begin_erasure(REQUEST)
    while store.personal_data.erasure_progress() is not None:
        store.personal_data.advance_erasure()
    (kept,) = store.directory.read(MembershipFilter(subject=namesake), Page(10, "")).items
    assert kept.entity.source_ref == "sis 4"
    changes = [each for each in store.directory.follow(0, 1000).changes if "maya.2" in each.actor]
    assert [each.reason for each in changes] == ["asked"]
    write(store, touch(Account(namesake)))
    store.close()


def test_kept_decisions_and_those_to_come_have_the_pseudonym(store_url: str) -> None:
    store = open_with(store_url, contents_at_once=2)
    fill(store)
    about = [msgspec.structs.replace(ENTRY, decision_id=f"d-{number}", at=number) for number in range(5)]
    by_maya = msgspec.structs.replace(ENTRY, decision_id="p", person="user:maya", subject="user:stu", at=9)
    denied = msgspec.structs.replace(
        ENTRY, decision_id="q", person="", allowed=False, reason="NOT_A_MEMBER", at=8
    )
    store.decisions.append([*about, denied, by_maya])
    with store.personal_data.export(MAYA) as export:
        entries_of_all = [each for each in export.items() if isinstance(each, ExportedEntry)]
    exported = [each for each in entries_of_all if each.section is ExportSection.DECISIONS]
    asked = "read notebook:nb-7"
    assert [each.text for each in exported[-3:]] == [
        f"service:notebooks for user:other called Check about user:maya: {asked}: allowed ROLE_GRANT",
        f"service:notebooks called Check about user:maya: {asked}: denied NOT_A_MEMBER",
        f"service:notebooks for user:maya called Check about somebody else: {asked}: allowed ROLE_GRANT",
    ]
    assert len(exported) == 7
    pseudonym = store.personal_data.begin_erasure(REQUEST)
    while store.personal_data.erasure_progress() is not None:
        store.personal_data.advance_erasure()
    store.decisions.append([msgspec.structs.replace(ENTRY, decision_id="late", at=10)])
    entries = store.decisions.read(DecisionQuery(), Page(100, "")).entries
    assert len(entries) == 8
    assert "user:maya" not in repr(entries)
    assert [each.subject for each in entries if each.decision_id == "late"] == [str(pseudonym)]
    assert {each.subject for each in entries if each.decision_id == "p"} == {"user:stu"}
    assert store.personal_data.certificate(pseudonym).removed["decisions rewritten"] == 7
    store.close()


def finished(store: Store) -> Store:
    while store.personal_data.erasure_progress() is not None:
        store.personal_data.advance_erasure()
    return store


def test_who_gets_the_resources_of_an_erased_person_stays_until_it_has_them(store_url: str) -> None:
    """The id would come back with the resources, after it was erased or renamed."""
    store = open_with(store_url, contents_at_once=1)
    fill(store)
    heir = user("heir")
    write(store, create(Membership(heir, course_scope("c0"), "student")))
    given = msgspec.structs.replace(REQUEST, orphans=False, resources_to=heir)
    store.personal_data.begin_erasure(given)
    for refused in (
        lambda: store.personal_data.begin_erasure(msgspec.structs.replace(REQUEST, subject=heir)),
        lambda: store.personal_data.rename(
            RenameRequest(subject=heir, to=user("other"), origin=Origin(reason="married"))
        ),
    ):
        with pytest.raises(FailedPreconditionError, match="is getting the resources of somebody"):
            refused()
    finished(store)
    assert len(store.directory.read(ResourceFilter(owner=heir), Page(10, "")).items) == len(COURSES)
    store.personal_data.begin_erasure(msgspec.structs.replace(REQUEST, subject=heir))
    assert "heir" not in log_of(finished(store))
    assert store.directory.read(ResourceFilter(owner=heir), Page(10, "")).items == ()
    store.close()


def test_who_was_erased_gets_no_resources(store_url: str) -> None:
    """The resources would name the person again, or have an owner whom nobody can give them."""
    store = open_with(store_url)
    fill(store)
    pseudonym = store.personal_data.begin_erasure(REQUEST)
    for is_over in (False, True):
        if is_over:
            finished(store)
        for heir in (MAYA, pseudonym):
            given = ErasureRequest(subject=STU, origin=Origin(reason="request 18"), resources_to=heir)
            with pytest.raises(FailedPreconditionError, match="erased"):
                store.personal_data.begin_erasure(given)
    store.close()


def test_who_is_being_erased_is_neither_renamed_nor_held(store_url: str) -> None:
    """A rename would move the records out of the erasure."""
    store = open_with(store_url, contents_at_once=1)
    fill(store)
    store.personal_data.begin_erasure(REQUEST)
    for refused in (
        lambda: store.personal_data.rename(
            RenameRequest(subject=MAYA, to=user("other"), origin=Origin(reason="married"))
        ),
        lambda: hold(store, MAYA),
    ):
        with pytest.raises(FailedPreconditionError, match="user:maya was erased"):
            refused()
    assert "other" not in log_of(finished(store))
    store.close()


def test_a_large_deletion_that_the_erased_person_began_goes_on_without_the_name(store_url: str) -> None:
    store = open_with(store_url, contents_at_once=1)
    fill(store)
    inside = [create(Membership(user(f"u{n}"), course_scope("c0"), "student")) for n in range(40)]
    write(store, *inside)
    deletion = WriteRequest(
        mutations=(remove(CourseKey("c0")),),
        origin=Origin(f"service:x for {MAYA}", "maya wants it", "delete-maya-1"),
    )
    store.directory.write(deletion)
    store.personal_data.begin_erasure(REQUEST)
    while store.personal_data.erasure_progress() is not None:
        store.directory.remove_contents()
        store.personal_data.advance_erasure()
    assert store.directory.removal_progress() is not None
    while store.directory.removal_progress() is not None:
        store.directory.remove_contents()
    with store.personal_data.export(MAYA) as export:
        assert [*export.items()] == []
    assert MAYA.id not in log_of(store).replace("maya-c", "a notebook-")
    store.close()


def test_an_erasure_is_not_complete_before_a_removal_that_names_the_person(store_url: str) -> None:
    store = open_with(store_url, contents_at_once=2)
    fill(store)
    here = course_scope("c0")
    notes = [Resource("notebook", f"n{number}", here, owner=STU) for number in range(5)]
    write(store, *map(create, notes), *(create(Share(each.key, MAYA, ShareLevel.VIEWER)) for each in notes))
    write(store, remove(MembershipKey(MAYA, here, "student")))
    pseudonym = store.personal_data.begin_erasure(REQUEST)
    for _ in range(50):
        store.personal_data.advance_erasure()
    assert store.personal_data.certificate(pseudonym).erasure.status is ErasureStatus.ERASING
    while store.directory.removal_progress() is not None:
        store.directory.remove_contents()
    finished(store)
    assert store.personal_data.certificate(pseudonym).erasure.status is ErasureStatus.COMPLETE
    store.close()


def test_a_watch_is_told_whose_erasure_begins_or_to_read_everything_again(store_url: str) -> None:
    store = open_with(store_url, contents_at_once=1)
    fill(store)
    before = store.directory.head()
    pseudonym = store.personal_data.begin_erasure(REQUEST)
    told = 0
    while store.personal_data.erasure_progress() is not None:
        try:
            chunk = store.directory.read_log(before, 0, 100)
        except OutOfRangeError:
            assert str(MAYA) not in log_of(store) or told
        else:
            told += 1
            named = {part.change.revision: part.change.erasing for part in chunk.parts}
            assert named.pop(before.revision + 1) == (MAYA,)
            assert set(named.values()) <= {()}
        store.personal_data.advance_erasure()
    assert told > len(COURSES)
    with pytest.raises(OutOfRangeError):
        store.directory.read_log(before, 0, 100)
    assert store.personal_data.certificate(pseudonym).finished_at is not None
    store.close()


def test_the_author_of_a_policy_is_erased_though_another_made_the_call(store_url: str) -> None:
    store = open_with(store_url)
    fill(store)
    written = PolicyVersion(
        course_scope("c0"), 1, "0" * 64, '{"model.conf":""}', 1, str(MAYA), f"{MAYA} says so"
    )
    store.directory.write(WriteRequest(mutations=(create(written),), origin=Origin("service:x")))
    write(store, remove(CourseKey("c0")))
    store.personal_data.begin_erasure(REQUEST)
    assert str(MAYA) not in log_of(finished(store))
    store.close()


def test_nobody_gets_the_pseudonym_of_an_erased_person(store_url: str) -> None:
    """It owns what was left without an owner, and the tree of the log knows by it who was erased."""
    store = open_with(store_url)
    fill(store)
    pseudonym = store.personal_data.begin_erasure(REQUEST)
    finished(store)
    (theirs, *_) = store.directory.read(ResourceFilter(owner=pseudonym), Page(10, "")).items
    data = store.personal_data
    for refused in (
        lambda: write(store, create(Membership(pseudonym, course_scope("c1"), "student"))),
        lambda: write(store, create(Account(pseudonym))),
        lambda: data.rename(RenameRequest(subject=pseudonym, to=STU, origin=Origin(reason="a"))),
        lambda: data.rename(RenameRequest(subject=STU, to=pseudonym, origin=Origin(reason="a"))),
        lambda: data.begin_erasure(msgspec.structs.replace(REQUEST, subject=pseudonym)),
        lambda: hold(store, pseudonym),
    ):
        with pytest.raises(FailedPreconditionError, match=f"{pseudonym} is the pseudonym of an erased"):
            refused()
    shown = msgspec.structs.replace(theirs.entity, visibility=Visibility.COURSE)
    write(store, touch(shown))
    (theirs, *_) = store.directory.read(ResourceFilter(owner=pseudonym), Page(10, "")).items
    assert theirs.entity == shown
    store.close()


def test_neither_the_reason_nor_the_request_id_of_an_erasure_names_the_person(store_url: str) -> None:
    store = open_with(store_url)
    for name, text in (
        ("reason", "maya asked"),
        ("reason", "as user:stu asked"),
        ("request_id", "erase-maya-1"),
    ):
        with pytest.raises(InvalidArgumentError, match=f"{name} names"):
            store.personal_data.begin_erasure(msgspec.structs.replace(REQUEST, origin=Origin(**{name: text})))
    store.close()
