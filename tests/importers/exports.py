"""OneRoster exports for tests, and a directory in memory to plan them against."""

from __future__ import annotations

import csv
import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import msgspec

from authz.domain.entities import (
    KINDS,
    Account,
    AccountKey,
    Course,
    CourseKey,
    Entity,
    Filter,
    Key,
    Membership,
    MembershipStatus,
    Versioned,
)
from authz.domain.ids import course_scope, parse_subject
from authz.domain.instants import Instant, parse_instant
from authz.domain.mutations import Mutation, Operation
from authz.importers.oneroster.plan import Plan
from authz.importers.oneroster.read import read_oneroster
from authz.importers.oneroster.reconcile import plan_import
from authz.importers.oneroster.rows import ReadOptions
from authz.importers.reader import EntityT

NOW = parse_instant("2026-10-01T00:00:00Z", field="")
BULK = {"academicSessions": "bulk", "classes": "bulk", "enrollments": "bulk", "users": "bulk"}
_COLUMNS = {
    "manifest": ("propertyName", "value"),
    "academicSessions": ("sourcedId", "status", "dateLastModified", "endDate"),
    "classes": ("sourcedId", "status", "dateLastModified", "title", "termSourcedIds"),
    "enrollments": (
        "sourcedId",
        "status",
        "dateLastModified",
        "classSourcedId",
        "userSourcedId",
        "role",
        "primary",
        "beginDate",
        "endDate",
    ),
    "users": ("sourcedId", "status", "dateLastModified", "enabledUser", "password"),
}
DEFAULTS = ReadOptions()
Row = dict[str, str]


def klass(ref: str, status: str = "", **others: str) -> Row:
    """A row of classes.csv."""
    return {"sourcedId": ref, "status": status, **others}


def enrolled(ref: str, class_ref: str, user: str, role: str = "student", **others: str) -> Row:
    """A row of enrollments.csv. `status`, `modified`, `begin`, `end` are as their columns."""
    names = {"modified": "dateLastModified", "begin": "beginDate", "end": "endDate"}
    row = {"sourcedId": ref, "classSourcedId": class_ref, "userSourcedId": user, "role": role}
    return row | {names.get(name, name): value for name, value in others.items()}


def user(ref: str, status: str = "", **others: str) -> Row:
    """A row of users.csv."""
    return {"sourcedId": ref, "status": status, **others}


def export(
    folder: Path,
    enrollments: Iterable[Row] | None = (),
    *,
    classes: Iterable[Row] | None = (klass("alg"),),
    modes: Mapping[str, str] | None = None,
    users: Iterable[Row] | None = None,
    terms: Mapping[str, str] | None = None,
) -> Path:
    """Write an export into a folder: each file that is given, and a manifest if `modes` is.

    `modes` names the files that are not absent. `terms` maps academic sessions to their ends.
    """
    folder.mkdir(exist_ok=True, parents=True)
    for old in folder.iterdir():
        old.unlink()
    sessions = None if terms is None else [{"sourcedId": k, "endDate": v} for k, v in terms.items()]
    for name, rows in {
        "classes": classes,
        "enrollments": enrollments,
        "users": users,
        "academicSessions": sessions,
    }.items():
        if rows is not None:
            _write(folder, name, rows)
    if modes is not None:
        stated = {"oneroster.version": "1.2"} | {f"file.{n}": modes.get(n, "absent") for n in BULK}
        _write(folder, "manifest", [{"propertyName": k, "value": v} for k, v in stated.items()])
    return folder


def _write(folder: Path, name: str, rows: Iterable[Row]) -> None:
    with (folder / f"{name}.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, _COLUMNS[name], restval="")
        writer.writeheader()
        writer.writerows(rows)


class Campus:
    """A directory that takes in exports. `now` moves on by an hour with each."""

    def __init__(self, folder: Path, *entities: Entity) -> None:
        self.held: dict[Key, Entity] = {}
        self._revisions: dict[Key, int] = {}
        self._head = 0
        self.now: Instant = NOW
        self._folder = folder
        self.write(*entities)

    def write(self, *entities: Entity) -> None:
        """Write records by hand."""
        self._head += 1
        for entity in entities:
            self._put(entity)

    def _put(self, entity: Entity) -> None:
        self.held[entity.key] = entity
        self._revisions[entity.key] = self._head

    def read(self, wanted: Filter[EntityT]) -> Iterator[Versioned[EntityT]]:
        """See `DirectoryReader`."""
        for kind in KINDS.values():
            if kind.filter_type is type(wanted):
                statuses = getattr(wanted, "statuses", ())
                found = (each for each in self.held.values() if isinstance(each, kind.entity))
                asked = (each for each in found if not statuses or each.status in statuses)
                yield from (Versioned(each, self._revisions[each.key]) for each in asked)

    def plan(self, path: Path, options: ReadOptions = DEFAULTS, *, deletes_classes: bool = False) -> Plan:
        """Plan an export that is there."""
        return plan_import(read_oneroster(path, options), self, now=self.now, deletes_classes=deletes_classes)

    def take_in(
        self,
        enrollments: Iterable[Row] | None = (),
        *,
        classes: Iterable[Row] | None = (klass("alg"),),
        modes: Mapping[str, str] | None = None,
        users: Iterable[Row] | None = None,
        terms: Mapping[str, str] | None = None,
        options: ReadOptions = DEFAULTS,
        deletes_classes: bool = False,
    ) -> Plan:
        """Write an export as `export` does, plan it and apply the plan. A repetition must change nothing."""
        folder = self._folder / "export"
        path = export(folder, enrollments, classes=classes, modes=modes, users=users, terms=terms)
        plan = self.plan(path, options, deletes_classes=deletes_classes)
        self._head += 1
        for mutation in plan.mutations:
            self._apply(mutation)
        again = self.plan(path, options, deletes_classes=deletes_classes)
        assert list(map(str, again.changes)) == []
        self.now += 3600 * 1_000_000
        return plan

    def _apply(self, mutation: Mutation) -> None:
        if mutation.operation is Operation.DELETE:
            assert self.held.pop(mutation.key, None) is not None, mutation.key
            if isinstance(mutation.key, CourseKey):
                inside = [
                    k
                    for k, e in self.held.items()
                    if isinstance(e, Membership) and e.scope.id == mutation.key.id
                ]
                for key in inside:
                    del self.held[key]
            return
        target = mutation.target
        assert isinstance(target, Entity)
        if isinstance(target, Membership):
            assert target.scope.id in {each.id for each in self.held.values() if isinstance(each, Course)}
            assert target.starts_at is None or target.ends_at is None or target.starts_at < target.ends_at
        assert self.held.get(mutation.key) != target, f"{mutation.key} does not change"
        self._put(target)

    def of(self, subject: str) -> list[Membership]:
        """The memberships of `maya`."""
        found = (each for each in self.held.values() if isinstance(each, Membership))
        return [each for each in found if str(each.subject) == f"user:{subject}"]

    def only(self, subject: str) -> Membership:
        """The one membership of `maya`."""
        (found,) = self.of(subject)
        return found

    def roles(self, subject: str) -> set[str]:
        """`role in scope` of the memberships of `maya` that are active now, or start later."""
        return {
            f"{each.role} in {each.scope.id}"
            for each in self.of(subject)
            if each.status is MembershipStatus.ACTIVE
            and not self.is_suspended(each)
            and (each.ends_at is None or each.ends_at > self.now)
        }

    def is_suspended(self, membership: Membership) -> bool:
        """Whether a membership is suspended now."""
        until = membership.suspended_until
        return membership.status is MembershipStatus.SUSPENDED or (until is not None and until > self.now)

    def account(self, subject: str) -> Account | None:
        """The account of `maya`, if there is one."""
        found = self.held.get(AccountKey(parse_subject(f"user:{subject}")))
        assert found is None or isinstance(found, Account)
        return found

    def course(self, course_id: str) -> Course:
        """A course by id."""
        found = self.held[CourseKey(course_id)]
        assert isinstance(found, Course)
        return found


def by_hand(subject: str, course_id: str = "alg", role: str = "student", **fields: object) -> Membership:
    """A membership that an administrator gave."""
    given = Membership(
        subject=parse_subject(f"user:{subject}"), scope=course_scope(course_id), role=role, source="admin"
    )
    return msgspec.structs.replace(given, **fields)


def at(text: str, zone: dt.tzinfo = dt.UTC) -> Instant:
    """The instant of a date."""
    return parse_instant(text, field="", zone=zone)
