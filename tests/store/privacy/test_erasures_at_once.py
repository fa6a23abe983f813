"""Erasures of several persons, and what else is written meanwhile, do not get in each other's way."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import msgspec
import pytest
from sqlalchemy import Connection

from authz.domain.decision_log import DecisionQuery
from authz.domain.drafts import PolicyDraft
from authz.domain.entities import Account, Course, ErasureStatus, Membership, MembershipFilter, ShareFilter
from authz.domain.errors import ErrorReason, FailedPreconditionError
from authz.domain.ids import PLATFORM, Subject, course_scope
from authz.domain.mutations import update
from authz.domain.origin import Origin
from authz.domain.ports import Page
from authz.store import Store, open_store
from authz.store.privacy import erase_history, erasure_steps
from authz.store.privacy.erase_files import rewrite_file, truncate_log
from authz.store.privacy.erase_history import _renamed_texts as renamed_texts
from authz.store.privacy.erase_history import find_revisions
from authz.store.privacy.erasure_steps import Phase, Step
from tests.store.directory import (
    VOCABULARY,
    Clock,
    create,
    notebook,
    open_with,
    refusal_of,
    remove,
    student,
    touch,
    user,
    write,
)
from tests.store.log.test_decisions import ENTRY
from tests.store.privacy.test_erasures import MAYA, REQUEST, STU, fill, finished, log_of
from tests.store.privacy.test_holds import begun

DRAFT_TEXTS = ("author", "files")


def begin(store: Store, subject: Subject) -> Subject:
    return store.personal_data.begin_erasure(msgspec.structs.replace(REQUEST, subject=subject))


def next_step(store: Store) -> Step:
    step = store.personal_data.erasure_progress()
    assert isinstance(step, Step)
    return step


def test_a_step_that_is_late_does_not_complete_the_erasure_of_somebody_else(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = open_with(store_url), open_with(store_url)
    fill(one)
    for subject in (MAYA, STU):
        begin(one, subject)
    late: list[Step] = []

    def read_before_the_other_process_goes_on(connection: Connection) -> Step | None:
        found = erasure_steps.next_step(connection)
        if found is not None and found.phase is Phase.HISTORY and not late:
            late.append(found)
            while (step := next_step(other)).subject == found.subject or step.phase is not Phase.HISTORY:
                other.personal_data.advance_erasure()
        return found

    monkeypatch.setattr("authz.store.privacy.personal_data.next_step", read_before_the_other_process_goes_on)
    log = log_of(finished(one))
    assert late
    assert [each for each in ("maya", "stu") if f"id='{each}'" in log or f"user:{each}" in log] == []
    one.close()
    other.close()


def test_a_step_that_is_late_does_not_take_an_erasure_back(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = open_with(store_url), open_with(store_url)
    fill(one)
    begin(one, MAYA)
    late: list[Step | None] = []

    def read_before_the_other_process_goes_on(connection: Connection) -> Step | None:
        found = erasure_steps.next_step(connection)
        if not late:
            late.append(found)
            while next_step(other).phase is not Phase.FILES:
                other.personal_data.advance_erasure()
        return found

    monkeypatch.setattr("authz.store.privacy.personal_data.next_step", read_before_the_other_process_goes_on)
    one.personal_data.advance_erasure()
    assert next_step(one).phase is Phase.FILES
    one.close()
    other.close()


def test_a_log_that_is_emptied_late_does_not_complete_the_erasure_of_somebody_else(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = open_with(store_url), open_with(store_url)
    fill(one)
    begin(one, MAYA)
    patched, begun = "authz.store.privacy.personal_data.truncate_log", list[Subject]()

    def truncate_while_the_other_process_goes_on(engine: Any) -> None:
        truncate_log(engine)
        monkeypatch.setattr(patched, truncate_log)
        begun.append(begin(finished(other), STU))
        while next_step(other).phase is not Phase.LOG:
            other.personal_data.advance_erasure()

    monkeypatch.setattr(patched, truncate_while_the_other_process_goes_on)
    while not begun:
        one.personal_data.advance_erasure()
    assert one.personal_data.certificate(begun[0]).erasure.status is ErasureStatus.ERASED
    finished(one)
    assert one.personal_data.certificate(begun[0]).erasure.status is ErasureStatus.COMPLETE
    one.close()
    other.close()


def test_an_erasure_that_goes_on_while_the_file_is_rewritten_has_it_rewritten_again(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it deleted meanwhile may be in the new file."""
    one, other = open_with(store_url), open_with(store_url)
    fill(one)
    begin(one, MAYA)
    rewritten: list[Step] = []

    def rewrite_while_the_other_process_goes_on(engine: Any) -> None:
        rewrite_file(engine)
        rewritten.append(next_step(one))
        if len(rewritten) == 1:
            begin(other, STU)
            while next_step(other).phase is not Phase.FILES:
                other.personal_data.advance_erasure()

    monkeypatch.setattr(
        "authz.store.privacy.personal_data.rewrite_file", rewrite_while_the_other_process_goes_on
    )
    finished(one)
    assert len({step.pseudonym for step in rewritten}) == len(rewritten) == 2
    one.close()
    other.close()


def test_access_ends_before_the_history_of_somebody_else_is_rewritten(store_url: str) -> None:
    store = open_with(store_url)
    fill(store)
    begin(store, STU)
    while next_step(store).phase is not Phase.HISTORY:
        store.personal_data.advance_erasure()
    begin(store, MAYA)
    store.personal_data.advance_erasure()
    for wanted in (MembershipFilter(subject=MAYA), ShareFilter(subject=MAYA)):
        assert store.directory.read(wanted, Page(10, "")).items == ()
    log = log_of(finished(store))
    assert [each for each in ("maya", "stu") if f"id='{each}'" in log] == []
    store.close()


def test_an_erasure_ends_although_others_begin_all_the_time(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erase_history, "CHANGES_SEARCHED", 2)
    store = open_with(store_url)
    fill(store)
    begun = [begin(store, MAYA)]
    for number in range(8):
        begun.append(begin(store, user(f"p{number}")))
        for _ in range(6):  # of more than it takes to rewrite one history
            store.personal_data.advance_erasure()
    assert [store.personal_data.certificate(each).finished_at is None for each in begun[:2]] == [False, False]
    assert next_step(store) is not None
    store.close()


def test_erasures_that_wait_search_the_log_together(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erase_history, "CHANGES_SEARCHED", 2)
    store = open_with(store_url)
    fill(store)
    for subject in (MAYA, STU, user("ada"), user("omar")):
        begin(store, subject)
    searched: list[int] = []

    def find(connection: Connection, subjects: Sequence[Subject], after: int) -> tuple[list[int], int | None]:
        searched.append(after)
        return find_revisions(connection, subjects, after)

    monkeypatch.setattr("authz.store.privacy.personal_data.find_revisions", find)
    log = log_of(finished(store))
    assert searched.count(0) == 1
    assert [each for each in ("maya", "stu") if f"id='{each}'" in log or f"user:{each}" in log] == []
    store.close()


def test_since_when_an_erasure_waits_is_known_while_it_waits_alone(store_url: str) -> None:
    """Also if another process ends the wait."""
    one, other = open_with(store_url), open_with(store_url)
    waited = one.personal_data._waits_since
    for number, ends in enumerate((one, other, one)):
        pseudonym = begin(one, user(f"p{number}"))
        while pseudonym not in waited:
            one.personal_data.advance_erasure()
        assert [*waited] == [pseudonym]
        finished(ends)
    one.close()
    other.close()


def test_no_write_names_who_was_erased(sqlite_url: str) -> None:
    store = open_with(sqlite_url)
    theirs = notebook("theirs", course_scope("c1"))
    write(store, create(Course("c1")), create(theirs))
    begin(store, MAYA)
    finished(store)
    for naming in (
        create(Account(MAYA)),
        create(student("maya", "c1")),
        touch(msgspec.structs.replace(theirs, owner=MAYA)),
        update(theirs.key, owner=MAYA),
    ):
        with pytest.raises(FailedPreconditionError, match=f"{MAYA} was erased"):
            write(store, naming)
    store.close()


def test_an_id_is_not_released_before_its_history_is_erased(store_url: str) -> None:
    store = open_with(store_url)
    fill(store)
    begin(store, MAYA)
    while next_step(store).phase is not Phase.FILES:
        with pytest.raises(FailedPreconditionError, match=f"{MAYA} is being erased, so there is nothing to"):
            store.personal_data.release(MAYA, Origin(reason="somebody new has the id"))
        store.personal_data.advance_erasure()
    store.personal_data.release(MAYA, Origin(reason="somebody new has the id"))
    write(store, create(Account(MAYA)))
    store.close()


def test_who_is_being_erased_or_was_gets_the_resources_of_nobody(store_url: str) -> None:
    store = open_with(store_url)
    fill(store)
    pseudonym = begin(store, STU)
    for _ in range(2):
        for receiver in (STU, pseudonym):
            with pytest.raises(FailedPreconditionError) as refused:
                store.personal_data.begin_erasure(
                    msgspec.structs.replace(REQUEST, orphans=False, resources_to=receiver)
                )
            assert refused.value.reason is ErrorReason.SUBJECT_ERASED
        finished(store)
    store.close()


STAYS, LEAVES = (Membership(subject, PLATFORM, "officer") for subject in (STU, MAYA))


def refused_erasure(store: Store) -> str:
    with pytest.raises(FailedPreconditionError) as refused:
        begin(store, STU)
    return refused.value.reason


def refused_write(store: Store) -> str:
    return refusal_of(store, remove(STAYS.key))


def refused_import(store: Store) -> str:
    mutations = [remove(STAYS.key), remove(LEAVES.key)]
    done = store.directory.import_batch(mutations, offset=0, origin=Origin(""))
    (fault,) = done.faults
    return fault.reason


@pytest.mark.parametrize("take_away", [refused_erasure, refused_write, refused_import])
def test_who_is_being_erased_administers_the_platform_no_more(
    store_url: str, take_away: Callable[[Store], str]
) -> None:
    vocabulary = msgspec.structs.replace(VOCABULARY, administrators=frozenset({"officer"}))
    store = open_store(store_url, vocabularies=lambda *_: vocabulary, clock=Clock())
    write(store, create(STAYS), create(LEAVES))
    begin(store, MAYA)
    assert take_away(store) == ErrorReason.LAST_ADMINISTRATOR
    finished(store)
    (left,) = store.directory.read(MembershipFilter(scope=PLATFORM), Page(10, "")).items
    assert left.entity == STAYS
    store.close()


def test_an_edit_of_a_draft_meanwhile_is_refused_or_stays(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = open_with(postgresql_url), open_with(postgresql_url)
    fill(one)
    draft = PolicyDraft(
        id="d", etag=1, base_number=0, files='{"a":"1: user:maya"}', author="", created_at=0, edited_at=0
    )
    one.drafts.create(draft)
    edited = msgspec.structs.replace(draft, etag=2, files='{"a":"2: user:maya"}')
    edits: list[Future[None]] = []
    with ThreadPoolExecutor(1) as pool:

        def edit_when_the_draft_was_read(row: Any, names: Any, *given: Any) -> dict[str, Any]:
            if names == DRAFT_TEXTS and not edits:
                edits.append(begun(postgresql_url, pool, lambda: other.drafts.replace(edited, etag=1)))
            return renamed_texts(row, names, *given)

        monkeypatch.setattr("authz.store.privacy.erase_history._renamed_texts", edit_when_the_draft_was_read)
        begin(one, MAYA)
        finished(one)
        is_refused = isinstance(edits[0].exception(), FailedPreconditionError)
    files = one.drafts.read(draft.key).files
    assert is_refused or files.startswith('{"a":"2: ')
    assert str(MAYA) not in files
    one.close()
    other.close()


def test_a_decision_that_is_being_stored_is_erased(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = open_with(postgresql_url), open_with(postgresql_url)
    fill(one)
    erased: list[Future[Store]] = []
    begin(other, MAYA)
    while next_step(other).phase is not Phase.HISTORY:
        other.personal_data.advance_erasure()
    with ThreadPoolExecutor(1) as pool:

        def find_nobody_before_the_erasure(*_: Any) -> dict[str, str]:
            erased.append(begun(postgresql_url, pool, lambda: finished(other)))
            return {}

        monkeypatch.setattr("authz.store.log.decisions.pseudonyms_of", find_nobody_before_the_erasure)
        one.decisions.append([ENTRY])
        erased[0].result()
    (entry,) = one.decisions.read(DecisionQuery(), Page(10, "")).entries
    assert entry.subject != str(MAYA)
    one.close()
    other.close()


def test_a_write_by_the_person_that_is_being_stored_is_erased(postgresql_url: str) -> None:
    one, other = open_with(postgresql_url), open_with(postgresql_url)
    fill(one)
    begin(one, MAYA)
    while next_step(one).phase is not Phase.HISTORY or not next_step(one).position:
        one.personal_data.advance_erasure()
    with ThreadPoolExecutor(1) as pool:
        with other.directory.transaction() as transaction:
            with transaction.revision(Origin(f"service:x for {MAYA}")) as batch:
                batch.rewrite([Account(STU)])
            erased = begun(postgresql_url, pool, lambda: finished(one))
        erased.result()
    assert str(MAYA) not in log_of(one)
    one.close()
    other.close()
