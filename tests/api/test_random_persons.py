"""Random persons make random calls: none changes what it has no right to, or gives itself a right."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Any, TypeAlias

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from authz.v1 import authorization_pb2 as apb
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from authz.v1 import policy_pb2 as ppb
from tests.api.test_policies import messages
from tests.api.test_rights import PLATFORM, acting_for, given, write
from tests.properties import LONG
from tests.service import START, Service

CALLS = 20_000 if LONG else 250
COURSES = ("a", "b")
TYPES = ("notebook", "message", "material", "session_note")
ROLES = {
    "course_id": ("owner", "teacher", "teaching_assistant", "student", "auditor", "alumni"),
    "session_id": ("host", "attendee", "guest"),
    "platform": ("platform_admin", "privacy_officer", "support_agent", "policy_editor"),
}
RANKS = {
    **dict(zip(ROLES["course_id"], (50, 40, 30, 20, 15, 10), strict=True)),
    **dict(zip(ROLES["session_id"], (30, 20, 10), strict=True)),
    **dict(zip(ROLES["platform"], (100, 90, 80, 70), strict=True)),
}
PEOPLE = ("root", "sue", "nobody", *(f"{name}-{course}" for course in COURSES for name in "otsgh"))
"""An owner, a teacher, a student, an assistant and a host of each course, by their first letters."""
HELD = {"o": "owner", "t": "teacher", "g": "teaching_assistant", "s": "student"}
FIELDS = {
    "membership": "status starts_at ends_at suspended_until source",
    "resource": "visibility published locked ai_allowed owner created_at available_from",
    "share": "level",
    "course": "state ai_enabled",
    "session": "state open_to_course",
    "account": "status suspended_until",
}
OPERATIONS = (
    dpb.OPERATION_CREATE,
    dpb.OPERATION_TOUCH,
    dpb.OPERATION_UPDATE,
    dpb.OPERATION_UPDATE,
    dpb.OPERATION_DELETE,
)
ROWS = tuple(
    f"p, {role}, course:{{}}, {what}, , {effect}"
    for role in ("teacher", "student", "teaching_assistant", "host", "*")
    for what in ("notebook, read", "material, publish", "course, manage_members", "session, record")
    for effect in ("allow", "deny")
)
READING = frozenset({"read", "join", "export", "read_members", "ai_process"})
CHANGING_ACCESS = frozenset({"update", "manage_members", "share", "publish", "archive", "edit_policy"})
REFUSALS = ("PERMISSION_DENIED", "FAILED_PRECONDITION", "ALREADY_EXISTS", "INVALID_ARGUMENT", "NOT_FOUND")
Thing: TypeAlias = tuple[str, str, str]
"""Type, id and course; without an id, any that is new."""
Powers: TypeAlias = dict[tuple[str, str, str, str], set[str]]
"""By person and thing, the actions that are allowed."""
Records: TypeAlias = dict[bytes, Any]
THINGS: tuple[Thing, ...] = tuple(
    (type_name, f"{type_name}{number}-{course}" if number else "", course)
    for type_name in TYPES
    for number in range(4)
    for course in COURSES
) + tuple(thing for each in COURSES for thing in (("course", each, each), ("session", f"s-{each}", each)))


def user(name: str) -> pb.Subject:
    return pb.Subject(type=pb.SUBJECT_TYPE_USER, id=name)


def home(type_name: str, course: str) -> dict[str, Any]:
    """In which scope the content of a course is."""
    return {"session_id": f"s-{course}"} if type_name == "session_note" else {"course_id": course}


def place(record: Any) -> str:
    """The course of a record, by the last letter of an id; or the platform."""
    if isinstance(record, pb.Account):
        return "platform"
    if isinstance(record, pb.Share):
        return str(record.resource_id[-1])
    scope = getattr(record, "scope", None)
    id_ = record.id if scope is None else getattr(scope, scope.WhichOneof("scope"))
    return id_[-1] if isinstance(id_, str) else "platform"


class Draw(random.Random):
    """Draws calls of a person."""

    def mutation(self, person: str) -> dpb.Mutation:
        kind = self.choice(("membership", "membership", "resource", "resource", *FIELDS))
        mutation = dpb.Mutation(operation=self.choice(OPERATIONS))
        getattr(mutation, kind).CopyFrom(getattr(self, kind)(self.choice((person, *PEOPLE))))
        if mutation.operation == dpb.OPERATION_UPDATE:
            fields = FIELDS[kind].split()
            mutation.update_mask.CopyFrom(FieldMask(paths=self.sample(fields, self.randint(1, len(fields)))))
        return mutation

    def membership(self, name: str) -> pb.Membership:
        scope = self.choice([PLATFORM, *(pb.Scope(**home(each, c)) for each in TYPES[2:] for c in COURSES)])
        role = self.choice(ROLES[str(scope.WhichOneof("scope"))])
        made = pb.Membership(subject=user(name), scope=scope, role=role)
        if self.random() < 0.3:
            made.status = self.choice(pb.MembershipStatus.values())
        if self.random() < 0.2:
            getattr(made, self.choice(("starts_at", "ends_at", "suspended_until"))).CopyFrom(self.time())
        return made

    def resource(self, name: str) -> pb.Resource:
        type_name, id_, course = self.choice([each for each in THINGS if each[1] and each[0] in TYPES])
        made = pb.Resource(type=type_name, id=id_, scope=pb.Scope(**home(type_name, course)))
        made.visibility = self.choice(pb.Visibility.values())
        made.published, made.ai_allowed = self.random() < 0.3, self.random() < 0.3
        made.locked = self.random() < 0.1
        if self.random() < 0.8:
            made.owner.CopyFrom(user(name))
        if self.random() < 0.1:
            made.created_at.CopyFrom(self.time())
        return made

    def share(self, name: str) -> pb.Share:
        content = self.resource(name)
        level = self.choice(pb.ShareLevel.values())
        return pb.Share(resource_type=content.type, resource_id=content.id, subject=user(name), level=level)

    def course(self, _: str) -> pb.Course:
        state = self.choice([pb.COURSE_STATE_ACTIVE, *pb.CourseState.values()])
        return pb.Course(id=self.choice(COURSES), state=state, ai_enabled=self.random() < 0.5)

    def session(self, _: str) -> pb.Session:
        course, state = self.choice(COURSES), self.choice(pb.SessionState.values())
        return pb.Session(id=f"s-{course}", course_id=course, state=state, open_to_course=self.random() < 0.5)

    def account(self, name: str) -> pb.Account:
        return pb.Account(subject=user(name), status=self.choice(pb.AccountStatus.values()))

    def time(self) -> Timestamp:
        return Timestamp(seconds=START // 10**6 + self.choice((-1_000, 1_000)))

    async def write(self, service: Service, person: str) -> None:
        """Make any call that changes records. Raises if it is refused."""
        kind = self.random()
        if kind < 0.7:
            mutations = [self.mutation(person) for _ in range(self.choice((1, 1, 2)))]
            await write(service, *mutations, person=person)
        elif kind < 0.85:
            batch = dpb.ImportRequest(mutations=[self.mutation(person) for _ in range(4)])
            await service.directory.Import(iter([batch]), metadata=acting_for(person))
        else:
            removal = dpb.RemoveMemberRequest(subject=user(self.choice(PEOPLE)))
            removal.scope.CopyFrom(pb.Scope(**home(self.choice(TYPES), self.choice(COURSES))))
            await service.directory.RemoveMember(removal, metadata=acting_for(person))

    async def policy(self, service: Service, person: str) -> None:
        """Publish a policy of a course. Raises if it is refused."""
        course = self.choice(COURSES)
        files = messages({"course.csv": self.choice(ROWS).format(course) + "\n"})
        request = ppb.ApplyPolicyRequest(files=files, course_id=course)
        await service.policy.ApplyPolicy(request, metadata=acting_for(person))


async def campus(service: Service, draw: Draw) -> None:
    records: list[dpb.Mutation] = [given("root", PLATFORM, "platform_admin")]
    records.append(given("sue", PLATFORM, "support_agent"))
    for each in COURSES:
        session = pb.Session(id=f"s-{each}", course_id=each, state=pb.SESSION_STATE_LIVE)
        records.append(dpb.Mutation(operation=dpb.OPERATION_TOUCH, session=session))
        course = pb.Course(id=each, state=pb.COURSE_STATE_ACTIVE)
        records.insert(0, dpb.Mutation(operation=dpb.OPERATION_TOUCH, course=course))
        records += [given(f"{name}-{each}", pb.Scope(course_id=each), role) for name, role in HELD.items()]
        records.append(given(f"h-{each}", pb.Scope(session_id=f"s-{each}"), "host"))
        for type_name in TYPES:
            content = pb.Resource(type=type_name, id=f"{type_name}1-{each}", owner=user(f"s-{each}"))
            content.scope.CopyFrom(pb.Scope(**home(type_name, each)))
            content.visibility = draw.choice([pb.VISIBILITY_PRIVATE, pb.VISIBILITY_COURSE])
            records.append(dpb.Mutation(operation=dpb.OPERATION_TOUCH, resource=content))
    await write(service, *records)


async def dump(service: Service) -> Records:
    """All records of the directory."""

    async def pages() -> AsyncIterator[Any]:
        directory = service.directory
        yield (await directory.ReadCourses(dpb.ReadCoursesRequest())).courses
        yield (await directory.ReadSessions(dpb.ReadSessionsRequest())).sessions
        yield (await directory.ReadMemberships(dpb.ReadMembershipsRequest(page_size=1000))).memberships
        yield (await directory.ReadResources(dpb.ReadResourcesRequest(page_size=1000))).resources
        yield (await directory.ReadShares(dpb.ReadSharesRequest(page_size=1000))).shares
        yield (await directory.ReadAccounts(dpb.ReadAccountsRequest())).accounts

    return {
        type(each).__name__.encode() + each.SerializeToString(deterministic=True): each
        async for page in pages()
        for each in page
    }


async def powers(service: Service, people: Iterable[str]) -> Powers:
    """What people may do to each thing."""
    unstated: dict[str, Any] = {}
    asked = [(name, *thing) for name in people for thing in THINGS]
    questions = [
        apb.ListActionsRequest(
            subject=user(name),
            resource=apb.ResourceQuery(type=what, id=id_, **(unstated if id_ else home(what, course))),
        )
        for name, what, id_, course in asked
    ]
    answer = await service.authorization.BatchListActions(apb.BatchListActionsRequest(items=questions))
    return {
        key: {action.action for action in each.response.actions if action.allowed}
        for key, each in zip(asked, answer.results, strict=True)
    }


class Step:
    """A call that was made for a person: all records before and after, and what everybody could do then."""

    def __init__(self, person: str, before: Records, after: Records, could: Powers, can: Powers) -> None:
        self.person, self.before, self.after, self.could, self.can = person, before, after, could, can
        self.changed = [after.get(key) or before[key] for key in before.keys() ^ after.keys()]
        self.gone = {each.id for each in self.changed if isinstance(each, pb.Course | pb.Session)}
        self.gone -= {each.id for each in after.values() if isinstance(each, pb.Course | pb.Session)}

    def wrong(self) -> Iterator[object]:
        """All that the person had no right to."""
        for each in self.changed:
            if not self._may_change(each):
                yield each
        yield from self._given_to_itself()

    def _actions(self, *things: Thing) -> set[str]:
        return set().union(*(self.could.get((self.person, *thing), set()) for thing in things))

    def _may_change(self, record: Any) -> bool:
        course = place(record)
        if course == "platform":
            return self.person == "root" and self._outranks(record)
        session = ("session", f"s-{course}", course)
        over = self._actions(("course", course, course), session)
        if self.gone & {course, f"s-{course}"}:
            return bool(over - READING)  # what was in it went with it
        match record:
            case pb.Membership():
                return "manage_members" in over and self._outranks(record)
            case pb.Resource() if self._existed(record.type, record.id):
                thing = (record.type, record.id, course)
                return bool(self._actions(thing) - READING) or "manage_members" in over
            case pb.Resource():
                return "create" in self._actions((record.type, "", course))
            case pb.Share():  # also ends with a membership
                thing = (record.resource_type, record.resource_id, course)
                return bool((self._actions(thing) | over) - READING)
            case pb.Course() if not self._existed("course", record.id):
                return self.person == "root"
            case _:
                return bool(over - READING)

    def _outranks(self, record: Any) -> bool:
        """Whether a role is below the highest that the person has in the course, or on the platform."""
        held = [
            RANKS[each.role]
            for each in self.before.values()
            if isinstance(each, pb.Membership)
            and (each.subject, place(each)) == (user(self.person), place(record))
        ]
        return isinstance(record, pb.Account) or RANKS[record.role] < max(held, default=0)

    def _given_to_itself(self) -> Iterator[object]:
        """What the person may do since to what was there, unless it could change the access to that."""
        for (name, *thing), actions in self.can.items():
            what, id_, course = thing
            gained = actions - self.could[name, what, id_, course]
            if name != self.person or not gained or not self._existed(what, id_):
                continue
            over = self._actions((what, id_, course), ("course", course, course))
            if what in ("session", "session_note"):
                over |= self._actions(("session", f"s-{course}", course))
            if not over & CHANGING_ACCESS:
                yield what, id_, gained

    def _existed(self, what: str, id_: str) -> bool:
        return any(
            each.id == id_ and getattr(each, "type", type(each).__name__.lower()) == what
            for each in self.before.values()
            if isinstance(each, pb.Resource | pb.Course | pb.Session)
        )

    def given_by_a_policy(self) -> Iterator[object]:
        """What somebody may do since which the person could do to nothing of the kind."""
        if self.person == "root":
            return  # who may give back what the platform's policy gives
        own: dict[tuple[str, str], set[str]] = {}
        for (name, what, _, course), actions in self.could.items():
            if name == self.person:
                own.setdefault((what, course), set()).update(actions)
        for (name, what, id_, course), actions in self.can.items():
            if excess := actions - self.could[name, what, id_, course] - own[what, course]:
                yield name, what, id_, excess


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_person_changes_only_what_it_may_and_gives_only_what_it_has(
    sqlite_service: Service, seed: int
) -> None:
    draw = Draw(seed)
    await campus(sqlite_service, draw)
    before, made, refused = await dump(sqlite_service), 0, 0
    for _ in range(CALLS // 2):
        person = draw.choice(PEOPLE)
        edits_policy = draw.random() < 0.1
        everybody = PEOPLE if edits_policy else (person,)
        could = await powers(sqlite_service, everybody)
        try:
            await (draw.policy if edits_policy else draw.write)(sqlite_service, person)
            made += 1
        except grpc.aio.AioRpcError as error:
            assert error.code().name in REFUSALS, error.details()
            refused += 1
            assert (await dump(sqlite_service)).keys() == before.keys(), "a refused call changed something"
            continue
        after, can = await dump(sqlite_service), await powers(sqlite_service, everybody)
        step = Step(person, before, after, could, can)
        assert not list(step.given_by_a_policy() if edits_policy else step.wrong()), person
        before = after
    assert min(made, refused) > CALLS // 20
