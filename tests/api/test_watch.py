"""Watch: every change after a token, in order, whole, and only what was asked for."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress

import grpc
import pytest
from google.protobuf import duration_pb2, timestamp_pb2
from structlog.testing import capture_logs

from authz.domain.tokens import ConsistencyToken
from authz.engine import watch
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from authz.v1 import watch_pb2 as wpb
from tests.api.test_api import ALGEBRA, COURSE, MAYA, delete, question, touch, written
from tests.api.watching import (
    CAMPUS,
    SCOPES,
    Watcher,
    mutations_of,
    request,
    revision_of,
    stated,
    told,
    watch_lines,
    watching,
    without_version,
    write_campus,
)
from tests.service import START, Service, in_process, info_of, reason_of, retry_of, serve
from tests.store.directory import changes_of, open_with
from tests.tokens import made_up

KINDS = wpb.EntityKind


async def test_a_watch_without_a_token_starts_now_and_says_where(sqlite_service: Service) -> None:
    before = await written(sqlite_service, COURSE)
    async with watching(sqlite_service) as watcher:
        assert await watcher.start() == before
        token = await written(sqlite_service, CAMPUS["student"])
        (change,) = await watcher.read_to(token)
    assert change.written_at == token
    assert [without_version(m) for m in change.mutations] == [CAMPUS["student"]]
    assert change.last


async def test_a_watch_resumes_from_the_token_of_a_write_a_change_or_a_checkpoint(service: Service) -> None:
    before, after = await write_campus(service)
    everything = await told(service, after, after=before)
    assert [without_version(m) for m in mutations_of(everything)] == list(CAMPUS.values())
    first = revision_of(before) + 1
    assert [revision_of(change.written_at) for change in everything] == list(
        range(first, first + len(CAMPUS))
    )
    for place in (0, 4, len(CAMPUS) - 1):
        assert await told(service, after, after=everything[place].written_at) == everything[place + 1 :]


async def test_a_change_says_when_who_and_why(sqlite_service: Service) -> None:
    async with watching(sqlite_service) as watcher:
        await watcher.start()
        sqlite_service.now = START + 1_500_000
        answer = await sqlite_service.directory.Write(
            dpb.WriteRequest(mutations=[COURSE], reason="term start")
        )
        (change,) = await watcher.read_to(answer.written_at)
    assert change.committed_at.ToMicroseconds() == START + 1_500_000
    assert (change.actor, change.reason) == ("unauthenticated", "term start")


_CHANGED = {
    "course": touch(course=pb.Course(id="algebra", state=pb.COURSE_STATE_ACTIVE, ai_enabled=True)),
    "session": touch(session=pb.Session(id="live", course_id="algebra", state=pb.SESSION_STATE_LIVE)),
    "student": touch(
        membership=pb.Membership(
            subject=MAYA, scope=ALGEBRA, role="student", status=pb.MEMBERSHIP_STATUS_SUSPENDED
        )
    ),
    "material": touch(resource=pb.Resource(type="material", id="m-1", scope=ALGEBRA, locked=True)),
    "share": touch(
        share=pb.Share(
            resource_type="material",
            resource_id="m-1",
            subject=CAMPUS["share"].share.subject,
            level=pb.SHARE_LEVEL_EDITOR,
            awaits_membership=True,
        )
    ),
    "account": touch(
        account=pb.Account(
            subject=CAMPUS["account"].account.subject,
            status=pb.ACCOUNT_STATUS_SUSPENDED,
            suspended_until=timestamp_pb2.Timestamp(seconds=7),
        )
    ),
}
CHANGED = {name: stated(mutation) for name, mutation in _CHANGED.items()}
PREPARED = ("course", "session", "student", "material")


@pytest.mark.parametrize("name", CHANGED)
async def test_each_kind_is_told_when_created_touched_and_deleted(sqlite_service: Service, name: str) -> None:
    others = (CAMPUS[each] for each in PREPARED if name not in (each, "course"))
    await written(sqlite_service, CAMPUS["poetry"], *others)
    created = dpb.Mutation.FromString(CAMPUS[name].SerializeToString())
    created.operation = dpb.OPERATION_CREATE
    kind = str(created.WhichOneof("entity"))
    async with watching(sqlite_service) as watcher:
        await watcher.start()
        for mutation in (created, CHANGED[name]):
            token = await written(sqlite_service, mutation)
            (change,) = await watcher.read_to(token)
            (sent,) = change.mutations
            assert without_version(sent) == mutation
            assert getattr(sent, kind).revision == revision_of(token)
        gone = dpb.Mutation(operation=dpb.OPERATION_DELETE, **{kind: getattr(CAMPUS[name], kind)})
        (change,) = await watcher.read_to(await written(sqlite_service, gone))
    expected = dpb.Mutation.FromString(CHANGED[name].SerializeToString())
    expected.operation = dpb.OPERATION_DELETE
    assert list(change.mutations) == [expected]


async def test_watchers_are_told_concurrent_writes_in_order_without_gap_or_repetition(
    service: Service,
) -> None:
    before = await written(service, COURSE)

    async def follow() -> list[wpb.WatchChange]:
        async with watching(service, after=before) as watcher:
            await watcher.start()
            return await watcher.read_to(service.moved(before, 40))

    followers = [asyncio.ensure_future(follow()) for _ in range(3)]
    tokens = await asyncio.gather(
        *(written(service, touch(course=pb.Course(id=f"c{number}"))) for number in range(40))
    )
    expected = sorted((revision_of(token), f"c{number}") for number, token in enumerate(tokens))
    for changes in await asyncio.gather(*followers):
        assert [(revision_of(c.written_at), c.mutations[0].course.id) for c in changes] == expected


async def test_checkpoints_pass_what_does_not_match_and_what_is_read_after_them_is_new(
    service: Service,
) -> None:
    before, after = await write_campus(service)
    async with watching(service, after=before, scopes=[SCOPES["none"]]) as watcher:
        assert await watcher.start() == before
        assert await watcher.read_to(after) == []
        more = await written(service, touch(course=pb.Course(id="more")))
        assert await watcher.read_to(more) == []
        revisions = [revision_of(token) for token in watcher.checkpoints]
    assert revisions == sorted(revisions)
    assert watcher.checkpoints[-1] == more


async def test_checkpoints_are_a_sign_of_life(sqlite_service: Service) -> None:
    async with watching(sqlite_service) as watcher:
        start = await watcher.start()
        for _ in range(3):
            checkpoint = (await watcher.read()).checkpoint
            assert checkpoint.read_up_to == start
            assert checkpoint.caught_up


MEMBERS = [
    touch(
        membership=pb.Membership(
            subject=pb.Subject(type=pb.SUBJECT_TYPE_USER, id=f"u{number:04}"),
            scope=SCOPES["live"] if number % 3 == 0 else ALGEBRA,
            role="guest" if number % 3 == 0 else "student",
        )
    )
    for number in range(40)
]


@in_process
@pytest.mark.parametrize(("scope", "count"), [("algebra", 42), ("live", 15), ("none", 0)])
async def test_a_large_change_comes_in_pieces_of_which_one_is_the_last(
    sqlite_service: Service, monkeypatch: pytest.MonkeyPatch, scope: str, count: int
) -> None:
    service = sqlite_service
    before = await written(service, COURSE, CAMPUS["session"], *MEMBERS)
    gone = await written(service, delete(course=pb.Course(id="algebra")))
    after = await written(service, COURSE)
    for read_at_once in (1, 2, 7, 40, 42, 43, 500):
        monkeypatch.setattr(watch, "MUTATIONS_A_READ", read_at_once)
        changes = await told(service, after, after=before, scopes=[SCOPES[scope]])
        pieces = [change for change in changes if change.written_at == gone]
        assert len(mutations_of(pieces)) == count, read_at_once
        assert len({m.SerializeToString() for m in mutations_of(pieces)}) == count, read_at_once
        assert [piece.last for piece in pieces] == [False] * (len(pieces) - 1) + [True] * bool(pieces)
        assert all(piece.mutations for piece in pieces), read_at_once
        if count > read_at_once:
            assert len(pieces) > 1, read_at_once


async def test_no_message_outgrows_the_limit(sqlite_url: str) -> None:
    limit = 16 * 1024
    async with serve(sqlite_url, max_message_bytes=str(limit)) as service:
        start = await written(service, COURSE)
        rows = [
            touch(
                membership=pb.Membership(
                    subject=pb.Subject(type=pb.SUBJECT_TYPE_USER, id=f"{'u' * 120}{number:04}"),
                    scope=ALGEBRA,
                    role="student",
                    source="s" * 128,
                    source_ref="r" * 256,
                )
            )
            for number in range(300)
        ]
        for at in range(0, len(rows), 20):
            await written(service, *rows[at : at + 20])
        gone = await written(service, delete(course=pb.Course(id="algebra")))
        changes = await told(service, gone, after=start)
        pieces = [change for change in changes if change.written_at == gone]
        assert len(mutations_of(pieces)) == 301
        assert max(change.ByteSize() for change in changes) < limit


async def test_a_watch_ends_when_the_server_stops(service: Service, store_url: str) -> None:
    server = AsyncExitStack()
    address = (await server.enter_async_context(serve(store_url, stop_grace_s="600"))).address
    async with server, grpc.aio.insecure_channel(address) as channel:
        stopping = Service(channel, address)
        async with watching(stopping) as watcher, watching(stopping) as other:
            await watcher.start()
            await other.start()
            ended = asyncio.ensure_future(asyncio.gather(watcher.error(), other.error()))
            await server.aclose()
            for error in await ended:
                assert error.code() is grpc.StatusCode.UNAVAILABLE
                assert reason_of(error) == "SERVER_STOPPING"
    token = await written(service, COURSE)
    (change,) = await told(service, token, after=watcher.checkpoints[-1])
    assert change.written_at == token


async def test_watches_have_a_bound_of_their_own_and_take_nothing_from_calls(sqlite_url: str) -> None:
    async with serve(sqlite_url, max_watches="4", max_checks="1") as service:
        async with watching(service) as first, watching(service) as second:
            await first.start()
            await second.start()
            assert not (await service.authorization.Check(question())).allowed
            async with watching(service) as third:
                error = await third.error()
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert (reason_of(error), info_of(error).metadata["limit"]) == ("OVERLOADED", "2")
            assert retry_of(error).retry_delay.ToMilliseconds() > 0
        while True:  # a transport may notice a moment later that they have left
            async with watching(service) as again:
                with suppress(grpc.aio.AioRpcError):
                    await again.start()
                    break


@pytest.mark.parametrize(
    ("bad", "reason", "field"),
    [
        (wpb.WatchRequest(after=pb.ConsistencyToken()), "MALFORMED_TOKEN", "after"),
        (wpb.WatchRequest(after=pb.ConsistencyToken(token="x" * 40)), "MALFORMED_TOKEN", "after"),
        (
            wpb.WatchRequest(after=pb.ConsistencyToken(token=made_up(ConsistencyToken("other", 0)))),
            "MALFORMED_TOKEN",
            "after",
        ),
        (wpb.WatchRequest(scopes=[ALGEBRA, pb.Scope()]), "MISSING_FIELD", "scopes[1]"),
        (wpb.WatchRequest(scopes=[pb.Scope(course_id="a b")]), "MALFORMED_ID", "scopes[0].course_id"),
        (wpb.WatchRequest(scopes=[ALGEBRA] * 101), "TOO_MANY_ITEMS", "scopes"),
        (wpb.WatchRequest(kinds=[wpb.ENTITY_KIND_UNSPECIFIED]), "MISSING_FIELD", "kinds"),
        (wpb.WatchRequest(kinds=[99]), "MALFORMED_FIELD", "kinds"),  # type: ignore[list-item]  # on purpose
        (request(every_ms=99), "MALFORMED_FIELD", "checkpoint_interval"),
        (request(every_ms=60_001), "MALFORMED_FIELD", "checkpoint_interval"),
        (request(every_ms=0), "MALFORMED_FIELD", "checkpoint_interval"),
        (request(every_ms=-1000), "MALFORMED_FIELD", "checkpoint_interval"),
        (
            wpb.WatchRequest(checkpoint_interval=duration_pb2.Duration(seconds=2**62)),
            "MALFORMED_FIELD",
            "checkpoint_interval",
        ),
        (wpb.WatchRequest(request_id="a b"), "MALFORMED_ID", "request_id"),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_bad_request_is_refused_before_anything_is_sent(
    shared_sqlite_service: Service, bad: wpb.WatchRequest, reason: str, field: str
) -> None:
    call = shared_sqlite_service.watch.Watch(bad)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert (reason_of(caught.value), info_of(caught.value).metadata["field"]) == (reason, field)


@pytest.mark.parametrize("interval_ms", [100, 60_000])
async def test_the_bounds_of_the_interval_are_taken(sqlite_service: Service, interval_ms: int) -> None:
    async with watching(sqlite_service, every_ms=interval_ms) as watcher:
        await watcher.start()


@in_process
async def test_lines_of_a_watch_hold_its_request_id_and_nothing_of_its_content(
    sqlite_service: Service,
) -> None:
    with capture_logs() as lines:
        asked = request(scopes=[pb.Scope(course_id="secret")])
        asked.request_id = "r-1"
        call = sqlite_service.watch.Watch(asked)
        watcher = Watcher(call)
        await watcher.start()
        answer = await sqlite_service.directory.Write(
            dpb.WriteRequest(mutations=[touch(course=pb.Course(id="secret"))], reason="secret")
        )
        assert len(await watcher.read_to(answer.written_at)) == 1
        call.cancel()
        bad = sqlite_service.watch.Watch(wpb.WatchRequest(scopes=[pb.Scope(course_id="secret id")]))
        with pytest.raises(grpc.aio.AioRpcError):
            await bad.read()
        watches = await watch_lines(lines, 2)
    assert {(line["request_id"] == "r-1", line["code"]) for line in watches} == {
        (True, "CANCELLED"),
        (False, "INVALID_ARGUMENT"),
    }
    assert {line["log_level"] for line in lines} == {"info"}
    assert "secret" not in str(lines)


async def test_the_log_and_the_watch_tell_the_same(sqlite_service: Service, sqlite_url: str) -> None:
    before, after = await write_campus(sqlite_service)
    changes = await told(sqlite_service, after, after=before)
    store = open_with(sqlite_url)
    logged = changes_of(store, revision_of(before), 100)
    store.close()
    assert [(revision_of(c.written_at), len(c.mutations)) for c in changes] == [
        (change.revision, len(change.mutations)) for change in logged
    ]
