"""The client's cache of answers."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections import OrderedDict

import msgspec

from authz.client.arguments import as_number, as_seconds
from authz.client.questions import Answer
from authz.domain.entities import AccountKey, EntityKind, Key, MembershipKey, RestrictionKey, ShareKey
from authz.domain.errors import malformed
from authz.domain.ids import ResourceRef, SubjectType
from authz.domain.tokens import latest
from authz.v1 import authorization_pb2 as pb
from authz.wire.values import parse_subject

DECIDING_KINDS = frozenset(EntityKind) - {
    EntityKind.ACCESS_TOKEN,
    EntityKind.HOLD,
    EntityKind.RETENTION_RULE,
}
"""The kinds of record whose changes may change an answer. A watch that names them is refused to a caller that
may not read one of them; a watch that names none would leave that kind out."""
_CHECKPOINTS_IN_BOUND = 4
_MAX_INTERVAL_S = 1.0
_MIN_STALENESS_S = 0.5


class _Entry(msgspec.Struct, frozen=True, gc=False):
    answer: Answer
    asked_at: int
    """The number of reported changes when the question was sent."""
    names: tuple[str, ...]
    """The keys whose changes may affect the answer, besides changes that may affect every answer."""


class DecisionCache:
    """Caches answers of `check` and `ask`, allowed and denied: `Client("…", cache=DecisionCache())`.

    The client reuses an answer until its `valid_until`, by the clock of this machine or that of the server,
    whichever is ahead, or until the server reports a change that may affect it: of the subject's memberships,
    account or restriction, of the resource or its shares, or of a course, a session or a policy. The client
    watches for changes, and a cached answer includes every reported change. If the watch has been silent for
    `max_staleness_s`, or has a backlog, the client asks the server every time. So a revocation takes effect
    within that time plus the network delay, and normally at once. The cache holds at most `max_entries`
    answers (LRU). Use one cache per client.
    """

    def __init__(self, *, max_entries: int = 10_000, max_staleness_s: float = 5.0) -> None:
        if as_number(max_entries, field="max_entries") < 1:
            raise malformed("max_entries", f"is {max_entries}; give 1 or more")
        if as_seconds(max_staleness_s, field="max_staleness_s") < _MIN_STALENESS_S:
            raise malformed("max_staleness_s", f"is {max_staleness_s}; give {_MIN_STALENESS_S} or more")
        self.checkpoint_interval_s = min(max_staleness_s / _CHECKPOINTS_IN_BOUND, _MAX_INTERVAL_S)
        self._max_entries = max_entries
        self._max_staleness_s = max_staleness_s
        self._lock = threading.Lock()
        self._is_used = False
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self._changes = 0
        self._changed: OrderedDict[str, int] = OrderedDict()
        """By name, the number of its last change, for the most recently changed names."""
        self._floor = 0
        """Answers to questions from before this change are invalid."""
        self._token = ""
        self._checkpoint_at: float | None = None
        self._confirmed_at: float | None = None
        """Until when the watch has reported every change."""
        self._behind = dt.timedelta()
        """By how much the clock of this machine is behind that of the server, by the last checkpoint."""

    def claim(self) -> None:
        """Take the cache for a client. Raises `InvalidArgumentError` if another one has it."""
        with self._lock:
            if self._is_used:
                raise malformed("cache", "is that of another client; make another one")
            self._is_used = True

    def find(self, question: bytes) -> Answer | None:
        """The cached answer to an encoded question, if it is still valid."""
        with self._lock:
            entry = self._entries.get(question)
            if entry is None or not self._is_live():
                return None
            last_change = max(self._floor, *(self._changed.get(name, 0) for name in entry.names))
            if last_change > entry.asked_at or self._is_over(entry.answer):
                del self._entries[question]
                return None
            self._entries.move_to_end(question)
            return entry.answer

    def asking(self) -> tuple[int, str] | None:
        """The argument of `keep`, and the state that a cacheable answer must see; None to cache nothing."""
        with self._lock:
            return (self._changes, self._token) if self._is_live() else None

    def keep(self, encoded: bytes, question: pb.CheckRequest, answer: Answer, asked_at: int) -> None:
        """Cache an answer, unless a change since `asked_at` may affect it."""
        ref, subject = question.resource, parse_subject(question, "subject", field="subject")
        entry = _Entry(answer, asked_at, (str(subject), f"{ref.type}:{ref.id}"))
        with self._lock:
            self._entries[encoded] = entry
            self._entries.move_to_end(encoded)
            if len(self._entries) > self._max_entries:
                self._entries.popitem(last=False)

    def confirm(self, token: str, caught_up: bool, server_time: dt.datetime) -> None:
        """A checkpoint of the watch, at a time of the server: every change up to this state has been
        reported, and if `caught_up`, every change up to the checkpoint before."""
        behind = server_time - dt.datetime.now(dt.UTC)
        with self._lock:
            self._behind = max(dt.timedelta(), behind)
            if caught_up:
                self._confirmed_at = self._checkpoint_at
            self._checkpoint_at = time.monotonic()
            self._token = latest(self._token, token)

    def change(self, key: Key, token: str) -> None:
        """The record with a key has changed, at this state."""
        name = _name_of(key)
        with self._lock:
            self._changes += 1
            self._token = latest(self._token, token)
            if name is None:
                self._floor = self._changes
                return
            self._changed[name] = self._changes
            self._changed.move_to_end(name)
            if len(self._changed) > self._max_entries:
                _, forgotten = self._changed.popitem(last=False)
                self._floor = max(self._floor, forgotten)

    def clear(self) -> None:
        """Invalidate all answers."""
        with self._lock:
            self._entries.clear()
            self._changes += 1
            self._floor = self._changes

    def interrupt(self) -> None:
        """The watch has a gap: clear the cache, and cache nothing before the next two checkpoints."""
        self.clear()
        with self._lock:
            self._token, self._checkpoint_at, self._confirmed_at = "", None, None

    def _is_over(self, answer: Answer) -> bool:
        end = answer.valid_until
        return end is not None and dt.datetime.now(dt.UTC) + self._behind >= end

    def _is_live(self) -> bool:
        at = self._confirmed_at
        return at is not None and time.monotonic() - at <= self._max_staleness_s


def _name_of(key: Key) -> str | None:
    """The subject or resource whose answers a change of a record may affect; None for all answers."""
    match key:
        case MembershipKey(subject=subject) | AccountKey(subject=subject) | RestrictionKey(subject=subject):
            # What the caller may ask and learn depends on the roles of a service.
            return str(subject) if subject.type is SubjectType.USER else None
        case ResourceRef() | ShareKey(resource=ResourceRef()):
            return str(key if isinstance(key, ResourceRef) else key.resource)
        case _:
            return None
