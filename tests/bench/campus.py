"""A campus of any size, made as it is read: one membership and one notebook for each user."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

from authz.domain.decisions import Question
from authz.domain.entities import KINDS, Course, CourseState, Kind, Membership, Resource, Visibility
from authz.domain.ids import (
    ResourceRef,
    Subject,
    SubjectType,
    course_scope,
    parse_resource_ref,
    parse_subject,
)
from authz.domain.tokens import KEY_BYTES, ConsistencyToken
from authz.store import prepare_store

MEMBERS_A_COURSE = 100


class Campus:
    """`size` memberships and as many notebooks, by default 100 of each in a course. A `Dump` of itself."""

    state = ConsistencyToken("bench", 1, 1, 1)
    token_key = bytes(KEY_BYTES)

    def __init__(self, size: int, *, members_a_course: int = MEMBERS_A_COURSE) -> None:
        self.size = size
        self.courses = max(1, size // members_a_course)

    def entities(self, kind: Kind, by: str = "") -> Iterator[Any]:
        """See `Dump.entities`. Memberships are the same in either order."""
        if kind.entity is Course:
            return (Course(id=f"c{n:07d}", state=CourseState.ACTIVE) for n in range(self.courses))
        return self._made(kind, range(self.size))

    def tombstones(self) -> Iterator[tuple[ResourceRef, int]]:
        """See `Dump.tombstones`. Nothing was deleted."""
        return iter(())

    def values(self, kind: Kind, fields: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """See `Dump.values`."""
        numbers = range(self.size) if fields[0] == "owner" else self._by_course()
        return map(attrgetter(*fields), self._made(kind, numbers))

    def _made(self, kind: Kind, numbers: Iterable[int]) -> Iterator[Any]:
        if kind.entity is Membership:
            return map(self.member, numbers)
        return map(self.notebook, numbers) if kind.entity is Resource else iter(())

    def member(self, number: int) -> Membership:
        """The student of a number."""
        return Membership(
            subject=Subject(SubjectType.USER, f"u{number:08d}"),
            scope=course_scope(f"c{number % self.courses:07d}"),
            role="student",
        )

    def notebook(self, number: int) -> Resource:
        """The notebook of a number, its student's, open to the course."""
        member = self.member(number)
        return Resource(
            type="notebook",
            id=f"n{number:08d}",
            scope=member.scope,
            owner=member.subject,
            visibility=Visibility.COURSE,
            created_at=1_700_000_000_000_000,
        )

    def questions(self, count: int) -> list[tuple[str, str, str]]:
        """(`user:<id>`, action, `notebook:<id>`): any user and a notebook of the same course, mostly
        somebody else's."""
        chance = random.Random(1)
        found = []
        for _ in range(count):
            number = chance.randrange(self.size)
            other = (number + self.courses * chance.randrange(3)) % self.size
            action = chance.choice(["read", "update"])
            found.append((f"user:u{number:08d}", action, f"notebook:n{other:08d}"))
        return found

    def fill_sqlite(self, path: Path) -> str:
        """Store all in a SQLite file, as one revision, past the service; return its URL."""
        url = f"sqlite:///{path}"
        prepare_store(url)
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA synchronous = OFF")
            put = connection.executemany
            ids = [f"c{n:07d}" for n in range(self.courses)]
            put("INSERT INTO courses VALUES (?, 'ACTIVE', 0, 900000000, 1)", ((each,) for each in ids))
            put(
                "INSERT INTO memberships (scope_kind, scope_id, subject_type, subject_id, role, status,"
                " source, source_ref, revision)"
                " VALUES ('course', ?, 'user', ?, 'student', 'ACTIVE', '', '', 1)",
                self.values(KINDS["membership"], ("scope.id", "subject.id")),
            )
            put(
                "INSERT INTO resources VALUES ('notebook', ?, 'course', ?, ?, ?, 'COURSE', 0, NULL,"
                " NULL, 1700000000000000, 0, 0, 1)",
                map(_row_of, self.entities(KINDS["resource"])),
            )
            connection.execute("INSERT INTO revisions VALUES (1, 'bench', '', '', 1, 1)")
            connection.execute("UPDATE counter SET revision = 1")
        return url

    def _by_course(self) -> Iterator[int]:
        return (n for course in range(self.courses) for n in range(course, self.size, self.courses))


def _row_of(notebook: Resource) -> tuple[str, str, str | None, str | None]:
    owner = notebook.owner
    return notebook.id, notebook.scope.id, *((None, None) if owner is None else (owner.type.value, owner.id))


def ask(user: str, action: str, notebook: str) -> Question:
    """The question of `user:<id>` about `notebook:<id>`, which are parsed as any caller's are."""
    return Question(parse_subject(user), action, parse_resource_ref(notebook))
