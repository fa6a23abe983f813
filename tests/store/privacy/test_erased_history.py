"""The change log of an erased person: what it loses, and what it keeps of others."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from authz.domain.audit import ChangeQuery, LoggedChange
from authz.domain.entities import Account, Course, EntityKind, Hold, Membership, PolicyVersion
from authz.domain.files import files_text
from authz.domain.ids import PLATFORM, course_scope
from authz.domain.mutations import Mutation, WriteRequest
from authz.domain.origin import Origin
from authz.domain.ports import Page
from authz.store import Store
from tests.store.directory import (
    create,
    hold,
    notebook,
    open_with,
    release_hold,
    remove,
    remove_all_contents,
    share,
    student,
    touch,
    user,
    write,
)
from tests.store.privacy.test_erasures import MAYA, REQUEST, STU, finished, log_of
from tests.store.privacy.test_personal_texts import plan
from tests.store.privacy.test_restored_erasures import tables_with

ALGEBRA = course_scope("algebra")
BY_MAYA, BY_ADA = f"service:x for {MAYA}", "service:x for user:ada"
OF_MAYA, OF_STU = create(student("maya", "algebra")), create(student("stu", "algebra"))
OF_HER_NOTES = touch(msgspec.structs.replace(notebook("notes", ALGEBRA), owner=STU))
TOLD: dict[str, tuple[tuple[Mutation, ...], str, str, str]] = {
    "about the person alone": ((OF_MAYA,), BY_ADA, "she moved", ""),
    "about what the person owned": ((OF_HER_NOTES,), BY_ADA, "she moved", ""),
    "about others, too": ((OF_MAYA, OF_STU), BY_ADA, "they moved", "they moved"),
    "about others, too, with the bare id": ((OF_MAYA, OF_STU), BY_ADA, "as maya asked", ""),
    "about others, too, with the name": ((OF_MAYA, OF_STU), BY_ADA, "as user:maya asked", "as {} asked"),
    "about others": ((OF_STU,), BY_ADA, "he moved", "he moved"),
    "about others, with the bare id": ((OF_STU,), BY_ADA, "like maya", "like maya"),
    "about others, by the person": ((OF_STU,), BY_MAYA, "he moved", "he moved"),
    "about others, by the person, with the bare id": ((OF_STU,), BY_MAYA, "maya says so", ""),
}


def changes(store: Store, query: ChangeQuery | None = None) -> tuple[LoggedChange, ...]:
    """From the oldest on."""
    return store.audit.read_changes(query or ChangeQuery(), Page(100, "")).changes[::-1]


@pytest.mark.parametrize("told", TOLD)
def test_a_reason_is_lost_only_if_it_may_tell_of_the_person(sqlite_url: str, told: str) -> None:
    mutations, actor, reason, left = TOLD[told]
    store = open_with(sqlite_url)
    write(store, create(Course("algebra")), create(notebook("notes", ALGEBRA)))
    request = WriteRequest(mutations=mutations, origin=Origin(actor, reason))
    revision = store.directory.write(request).revision
    pseudonym = store.personal_data.begin_erasure(REQUEST)
    finished(store)
    assert {each.reason for each in changes(store) if each.revision == revision} == {left.format(pseudonym)}
    assert {each.reason for each in changes(store) if each.revision > revision} == {REQUEST.origin.reason}
    store.close()


def test_what_a_source_called_the_person_is_lost_and_what_it_called_others_stays(sqlite_url: str) -> None:
    store = open_with(sqlite_url)
    enrolled = [Membership(who, ALGEBRA, "student", source_ref=f"sis {who.id[0]}-1") for who in (MAYA, STU)]
    write(store, create(Course("algebra")), *map(create, enrolled))
    store.personal_data.begin_erasure(REQUEST)
    finished(store)
    assert "sis m-1" not in log_of(store)
    assert "sis s-1" in log_of(store)
    store.close()


def test_why_the_person_was_held_is_lost_and_why_others_are_stays(sqlite_url: str) -> None:
    store = open_with(sqlite_url)
    hold(store, MAYA, "case of m")
    hold(store, STU, "case of s", f"service:dpo for {MAYA}")
    release_hold(store, MAYA, "settled")
    pseudonym = store.personal_data.begin_erasure(REQUEST)
    finished(store)
    found = {each.after for each in changes(store, ChangeQuery(kinds=(EntityKind.HOLD,))) if each.after}
    assert {(each.subject, each.reason) for each in found if isinstance(each, Hold)} == {
        (pseudonym, ""),
        (STU, "case of s"),
    }
    assert "case of m" not in log_of(store)
    assert [each.entity.reason for each in store.personal_data.holds()] == ["case of s"]
    store.close()


@pytest.mark.parametrize(("at_once", "searched"), [*itertools.product((1, 2), (1, 3, 500))])
def test_nothing_is_left_out_wherever_a_step_ends(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, at_once: int, searched: int
) -> None:
    monkeypatch.setattr("authz.store.privacy.erase_history.REVISIONS_AT_ONCE", at_once)
    monkeypatch.setattr("authz.store.privacy.erase_history.CHANGES_SEARCHED", searched)
    store = open_with(sqlite_url)
    for number in range(4):
        for other in range(4):  # of so many changes, several steps find none to rewrite
            write(store, create(Account(user(f"u{number}-{other}"))))
        by_maya = WriteRequest(mutations=(create(Course(f"c{number}")),), origin=Origin(BY_MAYA))
        store.directory.write(by_maya)
    pseudonym = store.personal_data.begin_erasure(REQUEST)
    finished(store)
    assert str(MAYA) not in log_of(store)
    assert store.personal_data.certificate(pseudonym).removed == {"revisions rewritten": 4}
    store.close()


KEYS = {
    "by the person": (BY_MAYA, "k-1", False),
    "with the name": (BY_ADA, f"of {MAYA}", False),
    "with the bare id": (BY_ADA, "maya-1", False),
    "by a namesake": (BY_MAYA + ".2", "k-1", True),
    "with the id of a namesake": (BY_ADA, "mayan-1", True),
}


def test_the_keys_of_writes_by_or_of_the_person_are_deleted_and_no_others(sqlite_url: str) -> None:
    store = open_with(sqlite_url)
    written = {
        name: WriteRequest(
            mutations=(create(Course(f"c{number}")),), origin=Origin(actor), idempotency_key=key
        )
        for number, (name, (actor, key, _)) in enumerate(KEYS.items())
    }
    for request in written.values():
        store.directory.write(request)
    pseudonym = store.personal_data.begin_erasure(REQUEST)
    finished(store)
    kept = {name: store.directory.recall(request) is not None for name, request in written.items()}
    assert kept == {name: is_kept for name, (_, _, is_kept) in KEYS.items()}
    assert store.personal_data.certificate(pseudonym).removed["idempotency keys deleted"] == 3
    store.close()


def test_many_keys_are_deleted_a_part_at_a_time(store_url: str) -> None:
    store = open_with(store_url, contents_at_once=2)
    written = [
        WriteRequest(
            mutations=(create(Course(f"c{number}")),), origin=Origin(BY_ADA), idempotency_key=f"maya-{number}"
        )
        for number in range(5)
    ]
    for request in written:
        store.directory.write(request)
    pseudonym = store.personal_data.begin_erasure(REQUEST)
    kept = [len(written)]
    while store.personal_data.erasure_progress() is not None:
        store.personal_data.advance_erasure()
        kept.append(sum(store.directory.recall(each) is not None for each in written))
    assert [after for before, after in itertools.pairwise(kept) if after != before] == [3, 1, 0]
    assert store.personal_data.certificate(pseudonym).removed["idempotency keys deleted"] == len(written)
    store.close()


def test_a_draft_that_does_not_name_the_person_may_still_be_edited(sqlite_url: str) -> None:
    store = open_with(sqlite_url)
    plan(store)
    (before,) = store.drafts.list(PLATFORM)
    store.personal_data.begin_erasure(REQUEST)
    finished(store)
    assert store.drafts.list(PLATFORM) == (before,)
    store.close()


@pytest.mark.parametrize("text", [f"# for {MAYA}", f"owner:\n{MAYA}", f"# for {MAYA}.2", "# for nobody"])
def test_the_certificate_says_which_policy_versions_still_name_the_person(sqlite_url: str, text: str) -> None:
    store = open_with(sqlite_url)
    version = PolicyVersion(ALGEBRA, 3, "0" * 64, files_text({"default.csv": text}), 1)
    write(store, create(Course("algebra")), create(version))
    pseudonym = store.personal_data.begin_erasure(REQUEST)
    finished(store)
    kept = store.personal_data.certificate(pseudonym).kept
    assert [each.partition(" names the subject")[0] for each in kept] == (
        ["version 3 of the policy of course:algebra"] if text.endswith(str(MAYA)) else []
    )
    store.close()


def test_a_hold_that_names_a_namesake_stays_as_it_is(sqlite_url: str) -> None:
    store = open_with(sqlite_url)
    hold(store, STU, f"he wrote to {MAYA}.2", f"service:dpo for {MAYA}2")
    before = store.personal_data.holds()
    store.personal_data.begin_erasure(REQUEST)
    for _ in range(20):
        store.personal_data.advance_erasure()
    assert store.personal_data.erasure_progress() is None
    assert store.personal_data.holds() == before
    store.close()


def test_an_erasure_waits_for_a_removal_that_names_the_person(sqlite_url: str) -> None:
    store = open_with(sqlite_url, contents_at_once=2)
    notes = [notebook(f"n{number}", ALGEBRA) for number in range(9)]
    write(store, create(Course("algebra")), OF_MAYA, *map(create, notes))
    write(store, *(create(share(each.id, MAYA.id)) for each in notes))
    write(store, remove(OF_MAYA.key))
    assert "removals" in tables_with(sqlite_url, MAYA)
    store.personal_data.begin_erasure(REQUEST)
    for _ in range(30):
        store.personal_data.advance_erasure()
    assert store.personal_data.erasure_progress() is not None
    remove_all_contents(store)
    finished(store)
    assert "removals" not in tables_with(sqlite_url, MAYA)
    store.close()
