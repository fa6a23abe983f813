"""Words for tests of Watch: a stream that is read to a token, and the campus that it tells of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf import duration_pb2

from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from authz.v1 import watch_pb2 as wpb
from tests.api.test_api import ALGEBRA, COURSE, MATERIAL, MAYA, STUDENT, touch, written
from tests.service import Service
from tests.tokens import state_of

_PATIENCE_S = 60
"""After which a test fails instead of waiting forever."""

OMAR = pb.Subject(type=pb.SUBJECT_TYPE_USER, id="omar")
IN_LIVE = pb.Scope(session_id="live")
PLATFORM = pb.Scope(platform=pb.Platform())
SESSION = touch(session=pb.Session(id="live", course_id="algebra"))
GUEST = touch(membership=pb.Membership(subject=MAYA, scope=IN_LIVE, role="guest"))
NOTE = touch(resource=pb.Resource(type="session_note", id="n-1", scope=IN_LIVE))
SHARE = touch(
    share=pb.Share(
        resource_type="material",
        resource_id="m-1",
        subject=OMAR,
        level=pb.SHARE_LEVEL_VIEWER,
        awaits_membership=True,
    )
)
NOTE_SHARE = touch(
    share=pb.Share(
        resource_type="session_note",
        resource_id="n-1",
        subject=OMAR,
        level=pb.SHARE_LEVEL_EDITOR,
        awaits_membership=True,
    )
)
OFFICER = touch(membership=pb.Membership(subject=OMAR, scope=PLATFORM, role="privacy_officer"))
ALONE = touch(session=pb.Session(id="alone"))
HOST = touch(membership=pb.Membership(subject=OMAR, scope=pb.Scope(session_id="alone"), role="host"))
POETRY = touch(course=pb.Course(id="poetry"))
ACCOUNT = touch(account=pb.Account(subject=OMAR))
POET = touch(membership=pb.Membership(subject=OMAR, scope=pb.Scope(course_id="poetry"), role="student"))


def stated(mutation: dpb.Mutation) -> dpb.Mutation:
    """As it is stored and told: with what a writer may leave out."""
    full = dpb.Mutation.FromString(mutation.SerializeToString())
    kind = str(full.WhichOneof("entity"))
    if kind == "course" and not full.course.HasField("edit_window"):
        full.course.edit_window.seconds = 900
    if kind == "course":
        full.course.state = full.course.state or pb.COURSE_STATE_DRAFT
    if kind == "session":
        full.session.state = full.session.state or pb.SESSION_STATE_SCHEDULED
    if kind == "membership":
        full.membership.status = full.membership.status or pb.MEMBERSHIP_STATUS_ACTIVE
    if kind == "resource":
        full.resource.visibility = full.resource.visibility or pb.VISIBILITY_PRIVATE
    if kind == "account":
        full.account.status = full.account.status or pb.ACCOUNT_STATUS_ACTIVE
    return full


_CAMPUS = {
    "course": COURSE,
    "session": SESSION,
    "student": STUDENT,
    "guest": GUEST,
    "material": MATERIAL,
    "note": NOTE,
    "share": SHARE,
    "note share": NOTE_SHARE,
    "officer": OFFICER,
    "alone": ALONE,
    "host": HOST,
    "poetry": POETRY,
    "poet": POET,
    "account": ACCOUNT,
}
CAMPUS = {name: stated(mutation) for name, mutation in _CAMPUS.items()}
"""One of each sort in each place, in an order in which they can be written."""

SCOPES = {
    "algebra": ALGEBRA,
    "poetry": pb.Scope(course_id="poetry"),
    "live": IN_LIVE,
    "alone": pb.Scope(session_id="alone"),
    "platform": PLATFORM,
    "none": pb.Scope(course_id="none"),
}


def revision_of(token: pb.ConsistencyToken) -> int:
    """What a token stands for."""
    return state_of(token.token).revision


def request(
    *, after: pb.ConsistencyToken | None = None, scopes: Any = (), kinds: Any = (), every_ms: int = 100
) -> wpb.WatchRequest:
    """A request with frequent checkpoints."""
    interval = duration_pb2.Duration()
    interval.FromMilliseconds(every_ms)
    return wpb.WatchRequest(after=after, scopes=scopes, kinds=kinds, checkpoint_interval=interval)


async def write_campus(service: Service) -> tuple[pb.ConsistencyToken, pb.ConsistencyToken]:
    """Write the campus to an empty database, a mutation a revision; the states before and after."""
    tokens = [await written(service, mutation) for mutation in CAMPUS.values()]
    return service.moved(tokens[0], -1), tokens[-1]


class Watcher:
    """One stream, being read."""

    def __init__(self, call: Any) -> None:
        self.call = call
        self.checkpoints: list[pb.ConsistencyToken] = []

    async def read(self) -> wpb.WatchResponse:
        """The next message; raises the error with which the stream ends."""
        async with asyncio.timeout(_PATIENCE_S):
            message: Any = await self.call.read()
        assert isinstance(message, wpb.WatchResponse), "a watch never ends without an error"
        if message.HasField("checkpoint"):
            self.checkpoints.append(message.checkpoint.read_up_to)
        return message

    async def start(self) -> pb.ConsistencyToken:
        """The first message."""
        message = await self.read()
        assert message.HasField("checkpoint")
        return message.checkpoint.read_up_to

    async def read_to(self, token: pb.ConsistencyToken) -> list[wpb.WatchChange]:
        """The changes until all is told that the state of the token holds."""
        changes = []
        while True:
            message = await self.read()
            if message.HasField("change"):
                changes.append(message.change)
            elif revision_of(message.checkpoint.read_up_to) >= revision_of(token):
                return changes

    async def error(self) -> grpc.aio.AioRpcError:
        """The error with which the stream ends, whatever comes before it."""
        try:
            while True:
                await self.read()
        except grpc.aio.AioRpcError as error:
            return error


@asynccontextmanager
async def watching(service: Service, **asked: Any) -> AsyncIterator[Watcher]:
    """A watch that ends with the block."""
    call = service.watch.Watch(request(**asked))
    try:
        yield Watcher(call)
    finally:
        call.cancel()


async def told(service: Service, until: pb.ConsistencyToken, **asked: Any) -> list[wpb.WatchChange]:
    """What a watch tells up to a token."""
    async with watching(service, **asked) as watcher:
        await watcher.start()
        return await watcher.read_to(until)


def mutations_of(changes: list[wpb.WatchChange]) -> list[dpb.Mutation]:
    """All mutations in order."""
    return [mutation for change in changes for mutation in change.mutations]


def without_version(mutation: dpb.Mutation) -> dpb.Mutation:
    """As it was written."""
    plain = dpb.Mutation.FromString(mutation.SerializeToString())
    getattr(plain, str(plain.WhichOneof("entity"))).ClearField("revision")
    return plain


async def watch_lines(lines: list[Any], count: int) -> list[Any]:
    """The log lines of watches, once there are so many."""
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            found = [line for line in lines if str(line.get("method")).endswith("/Watch")]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.01)
