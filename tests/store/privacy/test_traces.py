"""What names an erased person besides the log is searched while others write, and nothing is missed."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from authz.domain.decision_log import DecisionQuery
from authz.domain.entities import Course, PolicyVersion
from authz.domain.files import files_text
from authz.domain.ids import PLATFORM
from authz.domain.mutations import WriteRequest
from authz.domain.origin import Origin
from authz.domain.ports import Page
from authz.store import Store
from authz.store.privacy import traces
from authz.store.privacy.erasure_steps import Phase
from tests.api.test_long_calls_for_persons import Held
from tests.store.directory import create, hold, open_with, touch, write
from tests.store.log.test_decisions import ENTRY
from tests.store.privacy.test_erasures import MAYA, REQUEST, STU, fill, finished
from tests.store.privacy.test_erasures_at_once import next_step

SEARCHES = ("_decisions_naming", "_keys_naming", "_records_naming", "_versions_naming")
KEYED = WriteRequest(
    mutations=(touch(Course("late")),), origin=Origin("service:x"), idempotency_key=f"{MAYA.id}-9"
)
VERSION = PolicyVersion(PLATFORM, 7, "0" * 64, files_text({"default.csv": f"# for {MAYA}"}), 1)
LATE: dict[str, Callable[[Store], object]] = {
    "a key": lambda store: store.directory.write(KEYED),
    "a key of a write that changes nothing": lambda store: store.directory.write(KEYED),
    "a version": lambda store: write(store, create(VERSION)),
    "a hold": lambda store: hold(store, STU, f"as {MAYA} asked"),
    "a decision": lambda store: store.decisions.append([ENTRY]),
}


@pytest.mark.parametrize("search", SEARCHES)
def test_others_write_while_an_erasure_searches(
    store_url: str, monkeypatch: pytest.MonkeyPatch, search: str
) -> None:
    one, other = open_with(store_url), open_with(store_url)
    fill(one)
    pseudonym = one.personal_data.begin_erasure(REQUEST)
    while next_step(one).phase is not Phase.HISTORY:
        one.personal_data.advance_erasure()
    held = Held(getattr(traces, search))
    monkeypatch.setattr(f"authz.store.privacy.traces.{search}", held)
    with ThreadPoolExecutor(1) as pool:
        erased = pool.submit(finished, one)
        assert held.begun.wait(20)
        write(other, create(Course("meanwhile")))
        assert not erased.done()
        held.may_end.set()
        erased.result()
    assert one.personal_data.certificate(pseudonym).finished_at is not None
    one.close()
    other.close()


def steps_of_history(store: Store) -> int:
    steps = 0
    while next_step(store).phase is not Phase.FILES:
        store.personal_data.advance_erasure()
        steps += 1
    return steps


@pytest.mark.parametrize("late", LATE)
def test_what_is_written_after_the_search_is_not_missed(
    sqlite_url: str, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, late: str
) -> None:
    monkeypatch.setattr("authz.store.log.decisions.pseudonyms_of", lambda *_: {})  # as of an append under way
    same = open_with(f"sqlite:///{tmp_path_factory.mktemp('same') / 'authz.db'}")
    store = open_with(sqlite_url)
    for each in (same, store):
        fill(each)
        if "changes nothing" in late:
            write(each, create(Course("late")))
        pseudonym = each.personal_data.begin_erasure(REQUEST)
    for _ in range(steps_of_history(same) - 1):
        store.personal_data.advance_erasure()
    last = store.personal_data.prepare_erasure()
    LATE[late](store)
    store.personal_data.advance_erasure(last)
    finished(store)
    assert store.directory.recall(KEYED) is None
    decided = store.decisions.read(DecisionQuery(), Page(10, "")).entries
    assert str(MAYA) not in {each.subject for each in decided}
    assert str(MAYA) not in repr(store.personal_data.holds())
    kept = store.personal_data.certificate(pseudonym).kept
    assert [each.partition(" names")[0] for each in kept] == ["version 7 of the policy of platform"] * (
        late == "a version"
    )
    same.close()
    store.close()
