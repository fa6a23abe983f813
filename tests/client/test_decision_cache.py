"""A `DecisionCache` by itself: which answers hold after what its watch reports."""

from __future__ import annotations

import datetime as dt
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from authz.client import Answer, Client, DecisionCache, InvalidArgumentError, check_request
from authz.domain.ids import ResourceRef
from authz.domain.tokens import ConsistencyToken, TokenKeys
from tests.client.test_cache import READS, STUDENT, cache_of

EARLIER = dt.datetime(2001, 1, 1, tzinfo=dt.UTC)
"""Than the clock of this machine."""
STATES = [ConsistencyToken("d", number, number * 10) for number in range(4)]


@pytest.fixture
def tokens() -> list[str]:
    """Of states that follow each other."""
    keys = TokenKeys()
    keys.add("d", bytes(32))
    return [keys.sign(state) for state in STATES]


ANSWER = Answer(
    allowed=True,
    reason="ROLE_GRANT",
    rule="",
    unmet_facts=(),
    inactive_reason="",
    policy_version="1",
    checked_at="",
    valid_until=None,
    decision_id="d-1",
    course_policy_version="",
)
QUESTION = check_request(*READS)


def live(tokens: list[str]) -> DecisionCache:
    cache = cache_of()
    for token in tokens[:2]:
        cache.confirm(token, True, EARLIER)
    return cache


def test_an_answer_that_was_asked_for_before_a_change_is_not_kept(tokens: list[str]) -> None:
    cache = live(tokens)
    asked_at, _ = cast(tuple[int, str], cache.asking())
    cache.change(STUDENT.key, tokens[2])
    cache.keep(b"q", QUESTION, ANSWER, asked_at)
    assert cache.find(b"q") is None
    asked_at, least = cast(tuple[int, str], cache.asking())
    assert least == tokens[2]
    cache.keep(b"q", QUESTION, ANSWER, asked_at)
    assert cache.find(b"q") is ANSWER


def test_a_checkpoint_within_a_change_does_not_make_an_older_state_good_enough(tokens: list[str]) -> None:
    cache = live(tokens)
    cache.change(STUDENT.key, tokens[3])
    cache.confirm(tokens[2], True, EARLIER)
    assert cast(tuple[int, str], cache.asking())[1] == tokens[3]


def test_a_watch_with_a_backlog_keeps_no_answer_good(
    tokens: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [0.0]
    monkeypatch.setattr("authz.client.cache.time", SimpleNamespace(monotonic=lambda: now_s[0]))
    cache = cache_of(max_staleness_s=0.5)
    for token in tokens[:2]:
        cache.confirm(token, True, EARLIER)
    cache.keep(b"q", QUESTION, ANSWER, 0)
    assert cache.find(b"q") is ANSWER
    now_s[0] = 0.6
    for _ in range(3):
        cache.confirm(tokens[2], False, EARLIER)
        assert cache.find(b"q") is None
    cache.confirm(tokens[3], True, EARLIER)
    assert cache.find(b"q") is ANSWER


def test_what_changed_too_long_ago_to_be_remembered_ends_older_answers(tokens: list[str]) -> None:
    cache = DecisionCache(max_entries=2)
    for token in tokens[:2]:
        cache.confirm(token, True, EARLIER)
    cache.keep(b"q", QUESTION, ANSWER, 0)
    for number in range(3):
        cache.change(ResourceRef("notebook", f"other-{number}"), tokens[2])
    cache.change(STUDENT.key, tokens[2])
    for number in range(3):
        cache.change(ResourceRef("notebook", f"more-{number}"), tokens[2])
    assert cache.find(b"q") is None


def test_no_answer_from_before_a_gap_of_the_watch_is_given_after_it(tokens: list[str]) -> None:
    cache = live(tokens)
    cache.keep(b"q", QUESTION, ANSWER, 0)
    assert cache.find(b"q") is ANSWER
    cache.interrupt()
    for token in tokens[2:]:
        assert cache.asking() is None
        cache.confirm(token, True, EARLIER)
    assert cache.asking() is not None
    assert cache.find(b"q") is None


def test_an_answer_is_given_until_the_time_that_it_names(tokens: list[str]) -> None:
    cache, now = live(tokens), dt.datetime.now(dt.UTC)
    for ahead, is_found in ((dt.timedelta(hours=1), True), (dt.timedelta(), False)):
        answer = msgspec.structs.replace(ANSWER, valid_until=now + ahead)
        cache.keep(b"q", QUESTION, answer, 0)
        assert (cache.find(b"q") is answer) is is_found


def test_the_answer_that_was_not_given_for_longest_makes_room(tokens: list[str]) -> None:
    cache = DecisionCache(max_entries=2)
    for token in tokens[:2]:
        cache.confirm(token, True, EARLIER)
    cache.keep(b"old", QUESTION, ANSWER, 0)
    cache.keep(b"given", QUESTION, ANSWER, 0)
    cache.keep(b"old", QUESTION, ANSWER, 0)
    assert cache.find(b"given") is ANSWER
    cache.keep(b"new", QUESTION, ANSWER, 0)
    assert [cache.find(each) for each in (b"old", b"given", b"new")] == [None, ANSWER, ANSWER]
    cache.keep(b"given", QUESTION, ANSWER, 0)
    cache.keep(b"newer", QUESTION, ANSWER, 0)
    assert [cache.find(each) for each in (b"new", b"given")] == [None, ANSWER]


@pytest.mark.parametrize("limits", [{"max_entries": 0}, {"max_staleness_s": 0.0}])
def test_a_cache_that_could_keep_nothing_is_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match=next(iter(limits))):
        DecisionCache(**limits)


def test_a_cache_is_for_one_client() -> None:
    cache = DecisionCache()
    with Client("127.0.0.1:1", cache=cache), pytest.raises(InvalidArgumentError, match="of another client"):
        Client("127.0.0.1:1", cache=cache)


def test_an_answer_is_over_by_the_clock_that_is_ahead(tokens: list[str]) -> None:
    cache = live(tokens)
    in_an_hour = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    cache.keep(b"q", QUESTION, msgspec.structs.replace(ANSWER, valid_until=in_an_hour), 0)
    assert cache.find(b"q")
    cache.confirm(tokens[2], True, in_an_hour - dt.timedelta(minutes=1))
    assert cache.find(b"q")
    cache.confirm(tokens[2], True, in_an_hour + dt.timedelta(minutes=1))
    assert cache.find(b"q") is None
    over = dt.datetime.now(dt.UTC) - dt.timedelta(hours=1)
    cache.keep(b"q", QUESTION, msgspec.structs.replace(ANSWER, valid_until=over), 0)
    cache.confirm(tokens[2], True, EARLIER)
    assert cache.find(b"q") is None
