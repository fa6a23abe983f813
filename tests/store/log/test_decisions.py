"""The decision log in a table: no entry twice, and no page that looks at too much."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import msgspec
import pytest

from authz.audit.decision_log import DecisionLog
from authz.audit.table import TableSink
from authz.domain.decision_log import DecisionEntry, DecisionQuery, StoredDecision
from authz.domain.ports import Page
from authz.store import Store, pagination

ENTRY = DecisionEntry(
    decision_id="d-0",
    at=1_700_000_000_000_000,
    method="Check",
    code="OK",
    caller="service:notebooks",
    person="user:ada",
    request_id="r",
    subject="user:maya",
    action="read",
    resource="notebook:nb-7",
    course_id="algebra",
    session_id="s",
    purpose="ai_response",
    allowed=True,
    reason="ROLE_GRANT",
    role="student",
    rule="default.csv:7",
    policy_version="3",
    course_policy_version="1",
    revision=2**40,
    duration_us=75,
)


def entries(count: int) -> list[DecisionEntry]:
    return [
        msgspec.structs.replace(ENTRY, decision_id=f"d-{number:02}", at=ENTRY.at + number // 2)
        for number in range(count)
    ]


def plain(stored: Iterable[StoredDecision]) -> list[DecisionEntry]:
    """The entries alone."""
    names = DecisionEntry.__struct_fields__
    return [DecisionEntry(**{name: getattr(each, name) for name in names}) for each in stored]


def test_what_is_appended_is_read_as_it_was_and_once(store: Store) -> None:
    denied = msgspec.structs.replace(ENTRY, decision_id="d-9", allowed=False, at=ENTRY.at + 9)
    for _ in range(2):  # as after a commit whose answer was lost
        store.decisions.append([ENTRY, denied])
    assert plain(store.decisions.read(DecisionQuery(), Page(10)).entries) == [denied, ENTRY]


def test_an_entry_that_a_database_cannot_store_keeps_no_other_out(store: Store) -> None:
    log = DecisionLog([TableSink(store.decisions)], sample_rate=1)
    for each in entries(5):
        purpose = "a\0b" if each.decision_id == "d-02" else ""
        log.put(partial(msgspec.structs.replace, each, purpose=purpose))
    log.close()
    ids = {each.decision_id for each in store.decisions.read(DecisionQuery(), Page(10)).entries}
    assert ids >= {"d-00", "d-01", "d-03", "d-04"}


@pytest.mark.parametrize("oldest_first", [False, True])
def test_pages_go_on_among_entries_of_one_time(store: Store, oldest_first: bool) -> None:
    store.decisions.append(entries(7))
    found, token = list[str](), ""
    while True:
        page = store.decisions.read(DecisionQuery(oldest_first=oldest_first), Page(2, token))
        found += [each.decision_id for each in page.entries]
        token = page.next_token
        if not token:
            break
    expected = [f"d-{number:02}" for number in range(7)]
    assert found == (expected if oldest_first else expected[::-1])


def test_a_page_looks_at_a_bounded_number_of_rows(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pagination, "MAX_ROWS_PER_PAGE", 3)
    store.decisions.append([*entries(7), msgspec.structs.replace(ENTRY, at=0, action="share")])
    sizes, token = [], ""
    while True:
        page = store.decisions.read(DecisionQuery(action="share"), Page(10, token))
        sizes.append(len(page.entries))
        token = page.next_token
        if not token:
            break
    assert sizes == [0, 0, 1]
