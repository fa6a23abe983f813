"""How a watch ends, and that going on from its token loses nothing and repeats nothing."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import grpc
import pytest
from sqlalchemy import delete as sql_delete
from sqlalchemy import update
from structlog.testing import capture_logs

from authz.domain.mutations import LogChunk
from authz.domain.ports import Page
from authz.domain.tokens import ConsistencyToken
from authz.engine import watch
from authz.store import tables
from authz.store.database.engine import open_engine, write_transaction
from authz.store.directory import SqlDirectory
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from authz.v1 import watch_pb2 as wpb
from tests.api.test_api import ALGEBRA, COURSE, delete, touch, written
from tests.api.test_faults import AWAY, Breaking, breaking
from tests.api.watching import (
    SCOPES,
    Watcher,
    mutations_of,
    request,
    revision_of,
    told,
    watch_lines,
    watching,
)
from tests.service import Service, in_process, info_of, reason_of, serve

__all__ = ["breaking"]

SMALL_WINDOW = [("grpc.http2.bdp_probe", 0)]


def members(number: int) -> list[Any]:
    """Some tens of kilobytes."""
    return [
        touch(
            membership=pb.Membership(
                subject=pb.Subject(type=pb.SUBJECT_TYPE_USER, id=f"u{number}-{each}"),
                scope=ALGEBRA,
                role="student",
                source_ref="r" * 250,
            )
        )
        for each in range(100)
    ]


async def drained(call: Any) -> tuple[list[wpb.WatchResponse], grpc.aio.AioRpcError]:
    """All that had been sent, and how it ended."""
    messages = []
    try:
        while True:
            messages.append(await call.read())
    except grpc.aio.AioRpcError as error:
        return messages, error


def whole(messages: list[wpb.WatchResponse]) -> list[wpb.WatchChange]:
    """The changes without the pieces of one that was not sent to its end."""
    changes = [message.change for message in messages if message.HasField("change")]
    while changes and not changes[-1].last:
        changes.pop()
    return changes


def each_of(changes: list[wpb.WatchChange]) -> list[tuple[str, bytes]]:
    """Every mutation with its state."""
    return [(c.written_at.token, m.SerializeToString()) for c in changes for m in c.mutations]


@in_process
@pytest.mark.parametrize("read_at_once", [30, 500])
async def test_who_does_not_read_is_told_where_to_go_on_and_loses_nothing(
    store_url: str, monkeypatch: pytest.MonkeyPatch, read_at_once: int
) -> None:
    monkeypatch.setattr(watch, "MUTATIONS_A_READ", read_at_once)
    async with serve(store_url, watch_write_timeout_s="0.5") as service:
        before = await written(service, COURSE)
        for number in range(12):
            after = await written(service, *members(number))
        async with grpc.aio.insecure_channel(service.address, SMALL_WINDOW) as channel:
            with capture_logs() as lines:
                call = Service(channel, service.address).watch.Watch(request(after=before))
                (line,) = await watch_lines(lines, 1)
            assert line["code"] == "ABORTED"
            sent, error = await drained(call)
        assert (error.code(), reason_of(error)) == (grpc.StatusCode.ABORTED, "WATCH_FELL_BEHIND")
        resume_after = pb.ConsistencyToken(token=info_of(error).metadata["resume_after"])
        first = whole(sent)
        last_known = [m.checkpoint.read_up_to for m in sent if m.HasField("checkpoint")]
        last_known += [change.written_at for change in first]
        assert revision_of(resume_after) == max(map(revision_of, last_known))
        assert revision_of(before) < revision_of(resume_after) < revision_of(after)
        rest = await told(service, after, after=resume_after)
        # Where a change is parted depends on where the watch began; what it holds does not.
        assert each_of(first + rest) == each_of(await told(service, after, after=before))
        assert len(mutations_of(first + rest)) == 1200


@in_process
async def test_a_reader_that_does_not_read_keeps_no_place_from_others(sqlite_url: str) -> None:
    async with serve(sqlite_url, watch_write_timeout_s="0.5", max_watches="1") as service:
        before = await written(service, COURSE)
        for number in range(12):
            after = await written(service, *members(number))
        async with grpc.aio.insecure_channel(service.address, SMALL_WINDOW) as channel:
            with capture_logs() as lines:
                stuck = Service(channel, service.address).watch.Watch(request(after=before))
                await watch_lines(lines, 1)
            assert len(await told(service, after, after=before)) == 12
            assert not stuck.done()


def trim(url: str, up_to: int, *, audit_trail: bool) -> None:
    """Cut the log, with or without the rows that say who wrote what when.

    The last of these rows stays: a follower at that revision reads it, and would rebuild its replica.
    """
    engine = open_engine(url)
    with write_transaction(engine) as connection:
        connection.execute(sql_delete(tables.changes).where(tables.changes.c.revision <= up_to))
        if audit_trail:
            connection.execute(sql_delete(tables.revisions).where(tables.revisions.c.revision < up_to))
    engine.dispose()


def require_expired(error: grpc.aio.AioRpcError) -> None:
    assert (error.code(), reason_of(error)) == (grpc.StatusCode.OUT_OF_RANGE, "TOKEN_EXPIRED")
    assert info_of(error).metadata["field"] == "after"


@pytest.mark.parametrize("audit_trail", [True, False])
async def test_a_token_expires_when_what_follows_it_is_cut_from_the_log(
    service: Service, store_url: str, audit_trail: bool
) -> None:
    tokens = [await written(service, touch(course=pb.Course(id=f"c{number}"))) for number in range(5)]
    trim(store_url, revision_of(tokens[2]), audit_trail=audit_trail)
    for token in (service.moved(tokens[0], -1), tokens[0], tokens[1]):
        async with watching(service, after=token) as watcher:
            require_expired(await watcher.error())
            assert watcher.checkpoints == []
    assert [change.written_at for change in await told(service, tokens[4], after=tokens[2])] == tokens[3:]
    trim(store_url, revision_of(tokens[4]), audit_trail=audit_trail)
    async with watching(service, after=tokens[3]) as watcher:
        require_expired(await watcher.error())
    async with watching(service, after=tokens[4]) as watcher:
        assert await watcher.start() == tokens[4]


@pytest.mark.parametrize("by", [1, 1000, 2**63])
async def test_a_token_ahead_of_the_database_has_expired(sqlite_service: Service, by: int) -> None:
    token = await written(sqlite_service, COURSE)
    async with watching(sqlite_service, after=sqlite_service.moved(token, by)) as watcher:
        require_expired(await watcher.error())
        assert watcher.checkpoints == []


async def test_a_cut_that_overtakes_a_watch_ends_it(store_url: str) -> None:
    async with serve(store_url, watch_write_timeout_s="60") as service:
        before = await written(service, COURSE)
        for number in range(12):
            after = await written(service, *members(number))
        async with grpc.aio.insecure_channel(service.address, SMALL_WINDOW) as channel:
            call = Service(channel, service.address).watch.Watch(request(after=before))
            watcher = Watcher(call)
            await watcher.start()
            trim(store_url, revision_of(after) - 1, audit_trail=True)
            require_expired(await watcher.error())


async def test_a_database_that_falls_back_ends_the_watches_that_were_ahead_of_it(
    service: Service, store_url: str
) -> None:
    for number in range(3):
        token = await written(service, touch(course=pb.Course(id=f"c{number}")))
    async with watching(service, after=token) as watcher:
        await watcher.start()
        engine = open_engine(store_url)
        with write_transaction(engine) as connection:
            connection.execute(tables.counter.update().values(revision=1))
        engine.dispose()
        require_expired(await watcher.error())


@pytest.mark.usefixtures("breaking")
async def test_a_database_that_is_away_ends_a_watch_that_can_go_on_later(
    breaking: Breaking,
    store_url: str,
) -> None:
    async with serve(store_url) as service:
        token = await written(service, COURSE)
        async with watching(service) as watcher:
            await watcher.start()
            breaking.directory.fault = AWAY
            error = await watcher.error()
        assert (error.code(), reason_of(error)) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
        async with watching(service, after=token) as watcher:
            assert (await watcher.error()).code() is grpc.StatusCode.UNAVAILABLE
        breaking.directory.fault = None
        later = await written(service, touch(course=pb.Course(id="later")))
        (change,) = await told(service, later, after=token)
        assert change.written_at == later


async def test_a_fault_of_ours_ends_a_watch_and_says_nothing_of_its_cause(
    breaking: Breaking,
    sqlite_url: str,
) -> None:
    async with serve(sqlite_url) as service:
        await written(service, COURSE)
        async with watching(service) as watcher:
            await watcher.start()
            breaking.directory.fault = RuntimeError("secret")
            error = await watcher.error()
        assert (error.code(), reason_of(error)) == (grpc.StatusCode.INTERNAL, "INTERNAL")
        assert "secret" not in str(error.details())


@in_process
@pytest.mark.parametrize("read_at_once", [1, 7])
async def test_a_change_that_was_cut_off_is_sent_again_whole(
    sqlite_service: Service, monkeypatch: pytest.MonkeyPatch, read_at_once: int
) -> None:
    monkeypatch.setattr(watch, "MUTATIONS_A_READ", read_at_once)
    service = sqlite_service
    before = await written(service, COURSE, *members(0))
    gone = await written(service, delete(course=pb.Course(id="algebra")))
    async with watching(service, after=before, scopes=[SCOPES["algebra"]], every_ms=60_000) as watcher:
        await watcher.start()
        piece = (await watcher.read()).change
        assert not piece.last
    again = await told(service, gone, after=watcher.checkpoints[-1])
    assert again[0] == piece
    assert len(mutations_of(again)) == 101


@in_process
async def test_a_change_whose_history_is_left_in_its_midst_is_not_told_on(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "MUTATIONS_A_READ", 7)
    read_log, rewritten = SqlDirectory.read_log, list[int]()

    def rewriting(self: SqlDirectory, after: ConsistencyToken, skip: int, limit: int) -> LogChunk:
        if skip and not rewritten:
            rewritten.append(after.revision + 1)
            with write_transaction(engine) as connection:
                another = update(tables.revisions).values(nonce=tables.revisions.c.nonce - 1)
                connection.execute(another.where(tables.revisions.c.revision == rewritten[0]))
        return read_log(self, after, skip, limit)

    engine = open_engine(sqlite_url)
    async with serve(sqlite_url) as service:
        before = await written(service, COURSE, *members(0))
        gone = await written(service, delete(course=pb.Course(id="algebra")))
        monkeypatch.setattr(SqlDirectory, "read_log", rewriting)
        async with watching(service, after=before) as watcher:
            error = await watcher.error()
        assert rewritten == [revision_of(gone)]
        assert (error.code(), reason_of(error)) == (grpc.StatusCode.OUT_OF_RANGE, "TOKEN_EXPIRED")
    engine.dispose()


@in_process
async def test_a_large_change_of_which_nothing_is_wanted_does_not_pass_in_silence(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "MUTATIONS_A_READ", 1)
    read_log = SqlDirectory.read_log

    def slow(self: SqlDirectory, after: ConsistencyToken, skip: int, limit: int) -> LogChunk:
        time.sleep(0.005)
        return read_log(self, after, skip, limit)

    monkeypatch.setattr(SqlDirectory, "read_log", slow)
    async with serve(sqlite_url) as service:
        before = await written(service, COURSE, *members(0))
        gone = await written(service, delete(course=pb.Course(id="algebra")))
        async with watching(service, after=before, kinds=[wpb.ENTITY_KIND_SHARE]) as watcher:
            assert await watcher.read_to(gone) == []
        assert watcher.checkpoints.count(before) > 1


@in_process
async def test_a_checkpoint_of_a_watch_with_a_backlog_says_so(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "MUTATIONS_A_READ", 1)
    read_log = SqlDirectory.read_log

    def slow(self: SqlDirectory, after: ConsistencyToken, skip: int, limit: int) -> LogChunk:
        time.sleep(0.01)
        return read_log(self, after, skip, limit)

    monkeypatch.setattr(SqlDirectory, "read_log", slow)
    async with serve(sqlite_url) as service:
        before = await written(service, COURSE)
        last = await written(service, *members(0))
        async with watching(service, after=before, kinds=[wpb.ENTITY_KIND_SHARE]) as watcher:
            checkpoints = [(await watcher.read()).checkpoint]
            while not checkpoints[-1].caught_up:
                checkpoints.append((await watcher.read()).checkpoint)
        assert len(checkpoints) > 2
        assert checkpoints[-1].read_up_to == last


@in_process
async def test_a_watch_goes_on_while_a_costly_read_takes_its_time(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, goes_on = SqlDirectory.read, threading.Event()

    def costly(self: SqlDirectory, wanted: Any, page: Page) -> Any:
        goes_on.wait()
        return read(self, wanted, page)

    monkeypatch.setattr(watch, "_MAX_WAIT_S", 0.1)
    async with serve(sqlite_url) as service:
        before = await written(service, COURSE)
        monkeypatch.setattr(SqlDirectory, "read", costly)
        reading = asyncio.ensure_future(service.directory.ReadCourses(dpb.ReadCoursesRequest()))
        try:
            async with watching(service, after=before) as watcher:
                assert await watcher.read_to(await written(service, *members(0)))
            assert not reading.done()
        finally:
            goes_on.set()
        await reading


@in_process
async def test_clients_that_leave_free_their_place(sqlite_url: str) -> None:
    async with serve(sqlite_url, max_watches="1") as service:
        for _ in range(5):
            with capture_logs() as lines:
                async with watching(service) as watcher:
                    await watcher.start()
                (line,) = await watch_lines(lines, 1)
            assert line["code"] == "CANCELLED"


async def test_a_watch_does_not_last_for_ever_and_goes_on_where_it_was(sqlite_url: str) -> None:
    async with serve(sqlite_url, max_watch_s="0.3") as service:
        token = await written(service, COURSE)
        async with watching(service, after=token) as watcher:
            error = await watcher.error()
            assert (error.code(), reason_of(error)) == (grpc.StatusCode.UNAVAILABLE, "WATCH_TIME_OVER")
            last = watcher.checkpoints[-1]
        async with watching(service, after=last) as again:
            assert await again.start() == last == token
