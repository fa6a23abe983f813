"""The checker of histories accepts what is right, and finds what breaks each rule."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.faults.history import RULES, Cell, Check, Consistency, Event, History, Logged, Outcome, Write

MAYA: Cell = ("maya", "algebra")
OMAR: Cell = ("omar", "algebra")
MINIMAL, TOKEN, FULL = Consistency
OK, FAILED, UNKNOWN = Outcome
BASE = 10


def write(
    move: str,
    begin: int,
    end: int,
    revision: int = -1,
    *,
    grants: bool = True,
    cell: Cell = MAYA,
    outcome: Outcome = OK,
    server: str = "one",
) -> Write:
    """A write of client `w` between two milliseconds."""
    return Write(
        client="w",
        server=server,
        invoked_at_ns=begin * 1_000_000,
        returned_at_ns=end * 1_000_000,
        cell=cell,
        outcome=outcome,
        move=move,
        grants=grants,
        revision=revision,
    )


def check(
    begin: int,
    checked_at: int,
    *,
    allowed: bool,
    consistency: Consistency = MINIMAL,
    token: int = -1,
    cell: Cell = MAYA,
    server: str = "two",
    outcome: Outcome = OK,
) -> Check:
    """A check of client `c` that takes a millisecond."""
    return Check(
        client="c",
        server=server,
        invoked_at_ns=begin * 1_000_000,
        returned_at_ns=(begin + 1) * 1_000_000,
        cell=cell,
        outcome=outcome,
        consistency=consistency,
        token=token,
        allowed=allowed,
        checked_at=checked_at,
    )


def logged(revision: int, move: str, effects: dict[Cell, bool]) -> Logged:
    return Logged(revision, move, effects)


GRANT = write("grant", 0, 10, 11)
REVOKE = write("revoke", 20, 30, 12, grants=False)
LOG = [logged(11, "grant", {MAYA: True}), logged(12, "revoke", {MAYA: False})]


def broken(events: Sequence[Event], log: Sequence[Logged]) -> set[str]:
    """The rules that a history breaks."""
    return {violation.rule for violation in History(events, log, BASE).violations()}


def test_a_right_history_breaks_no_rule() -> None:
    events = [
        GRANT,
        REVOKE,
        write("again", 40, 50, outcome=UNKNOWN),
        write("never", 42, 50, grants=False, outcome=UNKNOWN),
        write("refused", 44, 50, outcome=FAILED),
        write("omar", 60, 70, 14, cell=OMAR, grants=False),
        check(1, 10, allowed=False),
        check(5, 11, allowed=True, consistency=FULL, server="three"),
        check(12, 10, allowed=False),
        check(12, 11, allowed=True, server="one"),
        check(12, 11, allowed=True, consistency=TOKEN, token=11, server="three"),
        check(32, 11, allowed=True),
        check(32, 12, allowed=False, consistency=FULL),
        check(52, 13, allowed=True, consistency=FULL),
        check(53, 13, allowed=True, consistency=TOKEN, token=12),
        check(54, -1, allowed=False, consistency=FULL, outcome=UNKNOWN),
        check(72, 14, allowed=False, cell=OMAR, consistency=FULL),
    ]
    log = [*LOG, logged(13, "again", {MAYA: True}), logged(14, "omar", {})]
    assert broken(events, log) == set()
    assert broken([], []) == set()


WRONG: dict[str, tuple[str, list[Event], list[Logged]]] = {
    "one revision twice": (
        "writes_in_real_time_order",
        [GRANT, write("revoke", 5, 15, 11, grants=False)],
        LOG,
    ),
    "a later write with a smaller revision": (
        "writes_in_real_time_order",
        [write("grant", 0, 10, 12), write("revoke", 20, 30, 11, grants=False)],
        [logged(11, "revoke", {}), logged(12, "grant", {MAYA: True})],
    ),
    "allowed before it was granted": (
        "answers_of_their_revision",
        [GRANT, REVOKE, check(1, 10, allowed=True)],
        LOG,
    ),
    "denied though it was granted": (
        "answers_of_their_revision",
        [GRANT, REVOKE, check(12, 11, allowed=False)],
        LOG,
    ),
    "allowed by the membership of another": (
        "answers_of_their_revision",
        [GRANT, REVOKE, check(12, 11, allowed=True, cell=OMAR)],
        LOG,
    ),
    "an answer of a revision that there never was": (
        "answers_of_their_revision",
        [GRANT, REVOKE, check(40, 13, allowed=False)],
        LOG,
    ),
    "an answer of a time before the beginning": (
        "answers_of_their_revision",
        [GRANT, REVOKE, check(40, 9, allowed=False)],
        LOG,
    ),
    "older than its token": (
        "fresh_as_asked",
        [GRANT, REVOKE, check(40, 10, allowed=False, consistency=TOKEN, token=11)],
        LOG,
    ),
    "fully consistent and older than a write": (
        "fresh_as_asked",
        [GRANT, REVOKE, check(12, 10, allowed=False, consistency=FULL)],
        LOG,
    ),
    "fully consistent and older than an answer": (
        "fresh_as_asked",
        [
            write("grant", 0, 90, 11),
            check(10, 11, allowed=True, server="one"),
            check(40, 10, allowed=False, consistency=FULL),
        ],
        LOG[:1],
    ),
    "allowed after a revocation that its token names": (
        "no_stale_allow",
        [GRANT, REVOKE, check(40, 11, allowed=True, consistency=TOKEN, token=12)],
        LOG,
    ),
    "allowed after a revocation, fully consistent": (
        "no_stale_allow",
        [GRANT, REVOKE, check(40, 12, allowed=True, consistency=FULL)],
        LOG,
    ),
    "an acknowledged write is gone": ("nothing_lost", [GRANT, REVOKE], LOG[:1]),
    "an acknowledged write is another revision": (
        "nothing_lost",
        [GRANT, write("revoke", 20, 30, 13, grants=False)],
        LOG,
    ),
    "an acknowledged write without its effect": (
        "nothing_lost",
        [GRANT, REVOKE],
        [LOG[0], logged(12, "revoke", {})],
    ),
    "an acknowledged write with the effect of another": (
        "nothing_lost",
        [GRANT, REVOKE],
        [logged(11, "grant", {MAYA: True, OMAR: True}), LOG[1]],
    ),
    "a write the wrong way round": (
        "nothing_lost",
        [GRANT, REVOKE],
        [logged(11, "grant", {MAYA: False}), LOG[1]],
    ),
    "a refused write that was done": (
        "nothing_lost",
        [GRANT, write("revoke", 20, 30, grants=False, outcome=FAILED)],
        LOG,
    ),
    "a write done twice": ("nothing_lost", [GRANT, REVOKE], [*LOG, logged(13, "grant", {MAYA: True})]),
    "a gap": (
        "nothing_lost",
        [GRANT, write("revoke", 20, 30, 13, grants=False)],
        [LOG[0], logged(13, "revoke", {MAYA: False})],
    ),
    "a gap at the beginning": (
        "nothing_lost",
        [write("revoke", 20, 30, 12, grants=False)],
        [logged(12, "revoke", {})],
    ),
    "one revision twice in the log": (
        "nothing_lost",
        [GRANT, write("revoke", 20, 30, grants=False, outcome=UNKNOWN)],
        [LOG[0], logged(11, "revoke", {MAYA: False})],
    ),
    "a write by nobody": ("nothing_lost", [GRANT], LOG),
    "a server that does not see its own write": (
        "own_writes_are_seen",
        [GRANT, REVOKE, check(40, 11, allowed=True, server="one")],
        LOG,
    ),
    "a server that goes back in time": (
        "time_does_not_go_back",
        [GRANT, REVOKE, check(12, 11, allowed=True), check(15, 10, allowed=False)],
        LOG,
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_each_rule_finds_what_breaks_it(case: str) -> None:
    rule, events, log = WRONG[case]
    assert rule in broken(events, log)


def test_every_rule_has_a_history_that_breaks_it_and_no_rule_cries_wolf_at_all() -> None:
    assert {rule for rule, _, _ in WRONG.values()} == RULES.keys()
    for rule, events, log in WRONG.values():
        assert broken(events, log) != RULES.keys(), rule


def test_a_write_that_waited_in_vain_for_its_replica_promises_as_much_as_any() -> None:
    slow = write("grant", 0, 5_000, 11)
    late = check(5_005, 10, allowed=False, server="one")
    assert broken([slow, late], LOG[:1]) == {"own_writes_are_seen"}


@given(
    st.lists(st.tuples(st.sampled_from([MAYA, OMAR]), st.booleans()), min_size=1, max_size=20),
    st.data(),
)
def test_of_one_register_that_takes_calls_in_turn_every_history_is_right_until_an_answer_is_turned(
    moves: list[tuple[Cell, bool]], data: st.DataObject
) -> None:
    state: dict[Cell, bool] = {MAYA: False, OMAR: False}
    events: list[Event] = []
    log: list[Logged] = []
    for turn, (cell, grants) in enumerate(moves):
        revision = BASE + 1 + turn
        effects = {cell: grants} if grants or state[cell] else {}
        state[cell] = grants
        log.append(logged(revision, f"m{turn}", effects))
        at_ms = 10 * turn
        events.append(write(f"m{turn}", at_ms, at_ms + 1, revision, grants=grants, cell=cell))
        asked = data.draw(st.sampled_from([MAYA, OMAR]))
        consistency = data.draw(st.sampled_from(list(Consistency)))
        events.append(
            check(
                at_ms + 3, revision, allowed=state[asked], cell=asked, consistency=consistency, server="one"
            )
        )
    assert broken(events, log) == set()
    place = data.draw(st.integers(0, len(moves) - 1)) * 2 + 1
    turned = events[place]
    assert isinstance(turned, Check)
    wrong = check(
        turned.invoked_at_ns // 1_000_000,
        turned.checked_at,
        allowed=not turned.allowed,
        cell=turned.cell,
        consistency=turned.consistency,
    )
    assert "answers_of_their_revision" in broken([*events[:place], wrong, *events[place + 1 :]], log)
