"""Whether what clients saw of the service could have come of one register that takes writes in order.

A history is what clients did and were told, with the times between which each call was under way; the
log is what the database holds at the end. Each rule is a promise of the service, and finds every event
that breaks it. Source: Herlihy and Wing, Linearizability (1990); the "new enemy": Pang et al., Zanzibar
(2019), 2.2.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from itertools import pairwise

import msgspec

Cell = tuple[str, str]
"""A user and a course: is there a membership that gives a role?"""


class Outcome(StrEnum):
    """What a client knows of its call. A failed write has changed nothing; an unknown one may have."""

    OK = "OK"
    FAILED = "FAILED"
    UNKNOWN = "UNKNOWN"


class Consistency(StrEnum):
    """What a check asks for."""

    MINIMIZE_LATENCY = "MINIMIZE_LATENCY"
    AT_LEAST_AS_FRESH = "AT_LEAST_AS_FRESH"
    FULLY_CONSISTENT = "FULLY_CONSISTENT"


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """A call to one server, between two times of one monotonic clock."""

    client: str
    server: str
    invoked_at_ns: int
    returned_at_ns: int
    cell: Cell
    outcome: Outcome
    error: str = ""


class Write(Event, frozen=True, kw_only=True):
    """Grants or revokes one membership, under a name that no other write has."""

    move: str
    grants: bool
    revision: int = -1


class Check(Event, frozen=True, kw_only=True):
    """Asks whether the membership's role is there. `token` is the revision that it was to see."""

    consistency: Consistency
    token: int = -1
    allowed: bool = False
    checked_at: int = -1


class Logged(msgspec.Struct, frozen=True):
    """A revision of the change log: the move that made it, and what it says of memberships."""

    revision: int
    move: str
    effects: dict[Cell, bool]


class Violation(msgspec.Struct, frozen=True):
    """A promise that was not kept, by its rule."""

    rule: str
    text: str


class History:
    """What happened after revision `base`, at which no membership is there."""

    def __init__(self, events: Iterable[Event], log: Sequence[Logged], base: int) -> None:
        ordered = sorted(events, key=lambda event: event.invoked_at_ns)
        self.writes = [event for event in ordered if isinstance(event, Write)]
        self.checks = [event for event in ordered if isinstance(event, Check)]
        self.acknowledged = [write for write in self.writes if write.outcome is Outcome.OK]
        self.answered = [check for check in self.checks if check.outcome is Outcome.OK]
        self.log = log
        self.base = base
        moves = {write.move: write for write in self.writes}
        self.timeline: dict[Cell, list[tuple[int, bool]]] = {}
        for entry in log:
            # What the writers meant, not what the log says of it: that the two agree is a rule of its own.
            if write := moves.get(entry.move):
                self.timeline.setdefault(write.cell, []).append((entry.revision, write.grants))

    def granted(self, cell: Cell, revision: int) -> bool:
        """The state of a membership that the moves up to a revision make."""
        moves = self.timeline.get(cell, [])
        place = bisect_right(moves, revision, key=lambda move: move[0])
        return place > 0 and moves[place - 1][1]

    def violations(self) -> list[Violation]:
        """Everything that breaks a rule."""
        return [Violation(name, text) for name, rule in RULES.items() for text in rule(self)]


def writes_in_real_time_order(history: History) -> Iterator[str]:
    """Acknowledged revisions are distinct, and grow with real time."""
    for revision, count in Counter(write.revision for write in history.acknowledged).items():
        if count > 1:
            yield f"revision {revision} was acknowledged {count} times"
    before = Before((write.returned_at_ns, write.revision) for write in history.acknowledged)
    for write in history.acknowledged:
        if (seen := before.highest(write.invoked_at_ns)) > write.revision:
            yield f"{write} came after revision {seen} had been acknowledged"


def answers_of_their_revision(history: History) -> Iterator[str]:
    """Each answer is that of the state at its `checked_at`, which the log knows."""
    last = history.log[-1].revision if history.log else history.base
    for check in history.answered:
        if not history.base <= check.checked_at <= last:
            yield f"{check} is of a revision that the log does not have"
        elif check.allowed is not history.granted(check.cell, check.checked_at):
            yield f"{check} is not what the log says of its revision"


def fresh_as_asked(history: History) -> Iterator[str]:
    """No answer is older than its token or, fully consistent, than what anyone knew when it was asked."""
    before = Before(
        [
            *((write.returned_at_ns, write.revision) for write in history.acknowledged),
            *((check.returned_at_ns, check.checked_at) for check in history.answered),
        ]
    )
    for check in history.answered:
        least = -1
        if check.consistency is Consistency.AT_LEAST_AS_FRESH:
            least = check.token
        elif check.consistency is Consistency.FULLY_CONSISTENT:
            least = before.highest(check.invoked_at_ns)
        if check.checked_at < least:
            yield f"{check} had to be of {least} at least"


def no_stale_allow(history: History) -> Iterator[str]:
    """Who was let in after a revocation, by a check that had to see it, was granted it again since."""
    revoked: dict[Cell, list[Write]] = {}
    for write in history.acknowledged:
        if not write.grants:
            revoked.setdefault(write.cell, []).append(write)
    before = {
        cell: Before((write.returned_at_ns, write.revision) for write in writes)
        for cell, writes in revoked.items()
    }
    for check in history.answered:
        if not check.allowed or check.cell not in revoked:
            continue
        latest = -1
        if check.consistency is Consistency.FULLY_CONSISTENT:
            latest = before[check.cell].highest(check.invoked_at_ns)
        elif check.consistency is Consistency.AT_LEAST_AS_FRESH:
            known = (w.revision for w in revoked[check.cell] if w.revision <= check.token)
            latest = max(known, default=-1)
        if latest < 0:
            continue
        moves = history.timeline.get(check.cell, [])
        if not any(grants and latest < revision <= check.checked_at for revision, grants in moves):
            yield f"{check} after it was revoked by revision {latest}"


def nothing_lost(history: History) -> Iterator[str]:
    """The log is gapless, and holds every acknowledged write with its effect, and no other."""
    if history.log and history.log[0].revision != history.base + 1:
        yield f"the log begins with revision {history.log[0].revision} and not after {history.base}"
    for one, next_one in pairwise(history.log):
        if next_one.revision != one.revision + 1:
            yield f"revision {one.revision} is followed by {next_one.revision}"
    for move, count in Counter(entry.move for entry in history.log).items():
        if count > 1:
            yield f"{move} is {count} times in the log"
    entries = {entry.move: entry for entry in history.log}
    moves = {write.move: write for write in history.writes}
    for move in entries.keys() - moves.keys():
        yield f"{move} is in the log and nobody made it"
    for write in history.writes:
        entry = entries.get(write.move)
        if entry is None:
            if write.outcome is Outcome.OK:
                yield f"{write} was acknowledged and is lost"
        elif write.outcome is Outcome.FAILED:
            yield f"{write} was refused and is in the log"
        elif write.outcome is Outcome.OK and entry.revision != write.revision:
            yield f"{write} is in the log as revision {entry.revision}"
        elif not _has_effect(history, write, entry):
            yield f"{write} is in the log without its effect"


def _has_effect(history: History, write: Write, entry: Logged) -> bool:
    said = entry.effects.get(write.cell)
    if said is None:
        # To take away what is not there is logged as nothing.
        return not (entry.effects or write.grants or history.granted(write.cell, entry.revision - 1))
    return said is write.grants and len(entry.effects) == 1


def own_writes_are_seen(history: History) -> Iterator[str]:
    """No answer of a server is older than what it acknowledged, whether or not its replica had it then."""
    acknowledged: dict[str, list[tuple[int, int]]] = {}
    for write in history.acknowledged:
        acknowledged.setdefault(write.server, []).append((write.returned_at_ns, write.revision))
    yield from _older_than(history, acknowledged, "was acknowledged there before")


def time_does_not_go_back(history: History) -> Iterator[str]:
    """On one server, no answer is older than another that was there before it was asked."""
    seen: dict[str, list[tuple[int, int]]] = {}
    for check in history.answered:
        seen.setdefault(check.server, []).append((check.returned_at_ns, check.checked_at))
    yield from _older_than(history, seen, "was seen there before")


def _older_than(history: History, known: dict[str, list[tuple[int, int]]], why: str) -> Iterator[str]:
    before = {server: Before(seen) for server, seen in known.items()}
    for check in history.answered:
        if check.server in before:
            least = before[check.server].highest(check.invoked_at_ns)
            if check.checked_at < least:
                yield f"{check}, and {least} {why}"


Rule = Callable[[History], Iterator[str]]

RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        writes_in_real_time_order,
        answers_of_their_revision,
        fresh_as_asked,
        no_stale_allow,
        nothing_lost,
        own_writes_are_seen,
        time_does_not_go_back,
    )
}


class Before:
    """The highest revision that was known before a time, of (when it was known, revision)."""

    def __init__(self, known: Iterable[tuple[int, int]]) -> None:
        self._times: list[int] = []
        self._highest: list[int] = []
        highest = -1
        for at_ns, revision in sorted(known):
            highest = max(highest, revision)
            self._times.append(at_ns)
            self._highest.append(highest)

    def highest(self, before_ns: int) -> int:
        """-1 for nothing; what became known at that very time does not count."""
        place = bisect_right(self._times, before_ns - 1)
        return self._highest[place - 1] if place else -1
