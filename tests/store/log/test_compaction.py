"""The change log of a random history is compacted, and answers about every time after the cut as before."""

from __future__ import annotations

import time
from random import Random

import msgspec
import pytest

from authz.domain.entities import Course, CourseKey, Entity, Membership, RetainedData, RetentionRule, Session
from authz.domain.erasures import RenameRequest
from authz.domain.errors import AuthzError
from authz.domain.ids import course_scope, session_scope
from authz.domain.instants import DAY_US
from authz.domain.mutations import ChangeScope, Mutation
from authz.domain.origin import Origin
from authz.store import Store
from tests.databases import read_tree
from tests.store.directory import Clock, notebook, open_with, remove, share, student, touch, user, write
from tests.store.retention import YEAR_US, rule_of, set_period

COURSES, NAMES = ("c", "d"), ("ada", "maya", "omar")
EVENTS = 100


class History:
    """Random changes of two courses, a day apart, and what there was after each."""

    def __init__(self, store: Store, clock: Clock, seed: int) -> None:
        self._store = store
        self._clock = clock
        self._random = Random(seed)
        self.pasts: dict[tuple[int, str], set[Entity]] = {}

    def run(self) -> None:
        for _ in range(EVENTS):
            self._clock.now += DAY_US
            try:
                self._change()
            except AuthzError:
                continue  # a random change may be one that is refused
            for course in COURSES:
                self.pasts[self._clock.now, course] = self.past(self._clock.now, course)

    def past(self, at: int, course: str) -> set[Entity]:
        """What there was in a course and on the platform, without the rules themselves."""
        found = self._store.directory.records_at(
            at, CourseKey(course), lambda _: True, likely=ChangeScope(course), subject=None
        )
        return {each for each in found.entities if not isinstance(each, RetentionRule)}

    def _change(self) -> None:
        pick = self._random.choice
        course, name = pick(COURSES), pick(NAMES)
        scope, session = course_scope(course), f"s-{course}"
        match self._random.randrange(8):
            case 0:
                write(self._store, touch(Course(id=course, ai_enabled=pick((True, False)))))
            case 1:
                write(self._store, remove(CourseKey(course)))
            case 2:
                write(self._store, touch(Session(id=session, course_id=course)), touch(student(name, course)))
            case 3:
                write(self._store, remove(student(name, course).key), touch(notebook(f"nb-{course}", scope)))
            case 4:
                write(self._store, touch(share(f"nb-{course}", name, awaits=True)))
            case 5:
                self._store.directory.import_batch([*self._members(course)], offset=0, origin=Origin("test"))
            case 6:
                host = Membership(user(name), session_scope(session), "host")
                write(self._store, touch(host), remove(notebook(f"nb-{course}", scope).key))
            case 7:
                to = user(pick(NAMES))
                merging = RenameRequest(
                    subject=user(name), to=to, origin=Origin(reason="married"), merge=True
                )
                self._store.personal_data.rename(merging)
        while self._store.directory.removal_progress() is not None:
            self._store.directory.remove_contents()

    def _members(self, course: str) -> list[Mutation]:
        """Each of them twice, as in a careless roster, and one of them deleted between."""
        first = [touch(student(name, course)) for name in NAMES]
        again = [
            touch(msgspec.structs.replace(student(name, course), source_ref=str(self._random.random())))
            for name in NAMES
        ]
        return [*first, remove(student(NAMES[0], course).key), *again]


@pytest.mark.parametrize("seed", range(2))
def test_every_time_after_the_cut_is_answered_as_before(sqlite_url: str, seed: int) -> None:
    clock = Clock()
    clock.now = time.time_ns() // 1000 - YEAR_US
    store = open_with(sqlite_url, clock, contents_at_once=5)
    set_period(store, RetainedData.CHANGES, 90)
    history = History(store, clock, seed)
    history.run()
    signed = read_tree(sqlite_url)
    clock.now += 60 * DAY_US
    while store.retention.purge_progress() is not None:
        store.retention.advance_purge()
    since = rule_of(store, RetainedData.CHANGES).complete_since
    assert since is not None
    known = {moment: past for moment, past in history.pasts.items() if moment[0] >= since}
    assert 10 < len(known) < len(history.pasts)
    assert {moment: history.past(*moment) for moment in known} == known
    tree = read_tree(sqlite_url, [signed.size])
    assert (tree.faults, tree.roots[signed.size]) == ((), signed.roots[signed.size])
    assert tree.purged
    store.close()
