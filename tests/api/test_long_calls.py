"""Long calls end when their caller may no longer make them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from sqlalchemy import select

from authz.client import check_request
from authz.domain.ids import Subject, SubjectType
from authz.domain.tokens import ConsistencyToken
from authz.engine import group_commit
from authz.engine.consistency import ConsistencyGate
from authz.engine.group_commit import GroupCommitter
from authz.engine.policy_cases import prove_and_test
from authz.store.database.engine import opened, read_transaction
from authz.store.directory import SqlDirectory
from authz.store.privacy.recipients import askers
from authz.store.tables import ENTITY_TABLES
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from authz.v1 import policy_pb2 as plpb
from authz.v1 import privacy_pb2 as ppb
from authz.v1 import watch_pb2 as wpb
from tests.api.test_policies import messages
from tests.callers import grant, revoke, suspend
from tests.issuer import Issuer, bearer
from tests.policies import with_rows
from tests.service import Service, in_process, info_of, reason_of, serve

ISSUER = Issuer()
COURSES = 10_000


@pytest.fixture
async def secured(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Service]:
    """A server with one caller, which watches and imports."""
    for role in ("watcher", "roster_importer"):
        grant(sqlite_url, {"service:sync": role})
    settings = {"decision_log": "table", **ISSUER.settings(tmp_path)}
    async with serve(sqlite_url, now=time.time_ns() // 1000, **settings) as each:
        yield each


def told_of(url: str, name: str) -> set[str]:
    """The callers that were told something of a user, by the decision log."""
    with opened(url) as engine, read_transaction(engine) as connection:
        return {each.caller for each in askers(connection, Subject(SubjectType.USER, name))}


def has_course(url: str, course_id: str) -> bool:
    table = ENTITY_TABLES["course"]
    with opened(url) as engine, read_transaction(engine) as connection:
        return bool(connection.scalar(select(table.c.id).where(table.c.id == course_id)))


async def test_a_watch_ends_when_its_caller_loses_the_role(secured: Service, sqlite_url: str) -> None:
    watch = secured.watch.Watch(wpb.WatchRequest(), metadata=bearer(ISSUER.jwt("sync")))
    await watch.read()
    await asyncio.sleep(1)  # it goes on for as long as nothing changes
    await watch.read()
    revoke(sqlite_url, "service:sync", "watcher")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async with asyncio.timeout(20):
            while True:
                await watch.read()
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert info_of(caught.value).metadata["permission"] == "watch"


async def test_calls_go_on_when_their_caller_gains_a_role(secured: Service, sqlite_url: str) -> None:
    async def messages() -> AsyncIterator[dpb.ImportRequest]:
        for course_id in ("algebra", "drama"):
            course = dpb.Mutation(operation=dpb.OPERATION_TOUCH, course=pb.Course(id=course_id))
            yield dpb.ImportRequest(mutations=[course])
            async with asyncio.timeout(20):
                while not has_course(sqlite_url, course_id):  # noqa: ASYNC110  another connection tells
                    await asyncio.sleep(0.05)
            if course_id == "algebra":
                grant(sqlite_url, {"service:sync": "privacy_officer"})
                async with asyncio.timeout(20):
                    while "privacy_officer" not in str((await watch.read()).change):
                        pass
                await asyncio.sleep(1)  # until the calls have asked whether they may go on

    watch = secured.watch.Watch(wpb.WatchRequest(), metadata=bearer(ISSUER.jwt("sync")))
    await watch.read()
    imported = await secured.directory.Import(messages(), metadata=bearer(ISSUER.jwt("sync")), timeout=40)
    assert imported.written == 2
    async with asyncio.timeout(20):
        while "drama" not in str((await watch.read()).change):
            pass


async def import_until(secured: Service, url: str, end: Callable[[], object]) -> grpc.aio.AioRpcError:
    """The error of an import whose caller loses its right after the first message."""

    async def messages() -> AsyncIterator[dpb.ImportRequest]:
        course = dpb.Mutation(operation=dpb.OPERATION_TOUCH, course=pb.Course(id="algebra"))
        yield dpb.ImportRequest(mutations=[course])
        async with asyncio.timeout(20):
            # The client asks for the next message before the server has the first one.
            while not has_course(url, "algebra"):  # noqa: ASYNC110  another connection tells
                await asyncio.sleep(0.05)
        end()
        await asyncio.Event().wait()

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await secured.directory.Import(messages(), metadata=bearer(ISSUER.jwt("sync")), timeout=20)
    assert info_of(caught.value).metadata["written"] == "1"
    return caught.value


async def test_an_import_ends_when_its_caller_is_no_longer_known(
    secured: Service, sqlite_url: str, tmp_path: Path
) -> None:
    ended = await import_until(
        secured, sqlite_url, lambda: (tmp_path / "keys.json").write_bytes(Issuer().jwks())
    )
    assert ended.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_an_import_ends_and_says_why_when_its_caller_loses_a_role_or_is_suspended(
    secured: Service, sqlite_url: str
) -> None:
    ended = await import_until(secured, sqlite_url, lambda: revoke(sqlite_url, "service:sync", "watcher"))
    assert ended.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "lost `read_resources`, `read_shares`, `watch` during the call" in str(ended.details())
    delete = dpb.Mutation(operation=dpb.OPERATION_DELETE, course=pb.Course(id="algebra"))
    await secured.directory.Write(
        dpb.WriteRequest(mutations=[delete]), metadata=bearer(ISSUER.jwt("sync")), timeout=20
    )
    ended = await import_until(secured, sqlite_url, lambda: suspend(sqlite_url, "service:sync"))
    assert ended.code() is grpc.StatusCode.PERMISSION_DENIED
    assert "authz account restore service:sync" in str(ended.details())


@in_process
async def test_a_policy_is_not_published_when_its_caller_is_no_longer_known_after_the_proof(
    secured: Service, sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authz.api.recheck.INTERVAL_S", 0)
    begun, may_end = threading.Event(), threading.Event()

    def slowly(*given: Any) -> Any:
        begun.set()
        assert may_end.wait(60)
        return prove_and_test(*given)

    grant(sqlite_url, {"service:editor": "policy_editor"})
    async with asyncio.timeout(20):
        while True:  # until the server knows of the role
            with suppress(grpc.aio.AioRpcError):
                editor = bearer(ISSUER.jwt("editor"))
                await secured.policy.ReadPolicyVersions(plpb.ReadPolicyVersionsRequest(), metadata=editor)
                break
            await asyncio.sleep(0.05)
    monkeypatch.setattr("authz.engine.publish.prove_and_test", slowly)
    request = plpb.ApplyPolicyRequest(files=messages(with_rows("# reviewed")))
    applied = secured.policy.ApplyPolicy(request, metadata=editor, timeout=60)
    await asyncio.to_thread(begun.wait, 20)
    (tmp_path / "keys.json").write_bytes(Issuer().jwks())
    await asyncio.sleep(0.6)  # until the server has read the file
    may_end.set()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await applied
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    with opened(sqlite_url) as engine, read_transaction(engine) as connection:
        versions = connection.scalars(select(ENTITY_TABLES["policy_version"].c.number)).all()
    assert versions == [1]


@in_process
async def test_a_write_that_waits_is_dropped_when_its_caller_is_no_longer_known(
    secured: Service, sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_end, write_group = threading.Event(), threading.Event(), SqlDirectory.write_group
    waits, checked_while_in = asyncio.Event(), group_commit._checked_while_in

    def slowly(self: SqlDirectory, requests: Any) -> Any:
        begun.set()
        assert may_end.wait(60)
        return write_group(self, requests)

    async def told(queue: deque[Any], waiting: Any, require_permitted: Any) -> None:
        if waiting.work.origin.reason == "second":
            waits.set()
        await checked_while_in(queue, waiting, require_permitted)

    def write(course_id: str, reason: str) -> Any:
        course = dpb.Mutation(operation=dpb.OPERATION_TOUCH, course=pb.Course(id=course_id))
        request = dpb.WriteRequest(mutations=[course], reason=reason)
        return secured.directory.Write(request, metadata=bearer(ISSUER.jwt("sync")), timeout=60)

    monkeypatch.setattr(SqlDirectory, "write_group", slowly)
    monkeypatch.setattr(group_commit, "_checked_while_in", told)
    first = write("algebra", "first")
    await asyncio.to_thread(begun.wait, 20)
    second = write("drama", "second")
    await asyncio.wait_for(waits.wait(), 20)
    (tmp_path / "keys.json").write_bytes(Issuer().jwks())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await second
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    may_end.set()
    await first
    assert has_course(sqlite_url, "algebra") and not has_course(sqlite_url, "drama")


@in_process
async def test_a_rename_that_waits_is_dropped_when_its_caller_is_no_longer_known(
    secured: Service, sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_end, write_group = threading.Event(), threading.Event(), SqlDirectory.write_group
    waits, run_batch = asyncio.Event(), GroupCommitter.run_batch

    def slowly(self: SqlDirectory, requests: Any) -> Any:
        begun.set()
        assert may_end.wait(60)
        return write_group(self, requests)

    async def told(self: GroupCommitter, batch: Any, require_permitted: Any = None) -> Any:
        if isinstance(batch, partial) and batch.func.__name__ == "rename":
            waits.set()
        return await run_batch(self, batch, require_permitted)

    grant(sqlite_url, {"service:officer": "privacy_officer"})
    maya, other = (pb.Subject(type=pb.SUBJECT_TYPE_USER, id=name) for name in ("maya", "other"))
    sync, officer = (bearer(ISSUER.jwt(name)) for name in ("sync", "officer"))
    course = dpb.Mutation(operation=dpb.OPERATION_TOUCH, course=pb.Course(id="algebra"))
    enrolled = pb.Membership(subject=maya, scope=pb.Scope(course_id="algebra"), role="student")
    enrols = dpb.Mutation(operation=dpb.OPERATION_TOUCH, membership=enrolled)
    await secured.directory.Write(dpb.WriteRequest(mutations=[course, enrols]), metadata=sync)
    monkeypatch.setattr(SqlDirectory, "write_group", slowly)
    monkeypatch.setattr(GroupCommitter, "run_batch", told)
    first = secured.directory.Write(dpb.WriteRequest(mutations=[course]), metadata=sync, timeout=60)
    await asyncio.to_thread(begun.wait, 20)
    request = ppb.RenameSubjectRequest(subject=maya, to=other, reason="asked")
    renamed = secured.privacy.RenameSubject(request, metadata=officer, timeout=60)
    await asyncio.wait_for(waits.wait(), 20)
    (tmp_path / "keys.json").write_bytes(Issuer().jwks())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await renamed
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    may_end.set()
    await first
    with opened(sqlite_url) as engine, read_transaction(engine) as connection:
        members = connection.scalars(select(ENTITY_TABLES["membership"].c.subject_id)).all()
    assert "maya" in members and "other" not in members


async def test_a_watch_ends_while_nothing_tells_whether_its_caller_may_go_on(
    secured: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("authz.api.recheck.MAX_UNKNOWN_S", 1)
    watch = secured.watch.Watch(wpb.WatchRequest(), metadata=bearer(ISSUER.jwt("sync")))
    await watch.read()
    (tmp_path / "keys.json").write_bytes(b"half-written")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async with asyncio.timeout(20):
            while True:
                await watch.read()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert reason_of(caught.value) == "CREDENTIALS_UNVERIFIABLE"


async def test_an_export_ends_when_its_caller_loses_the_role(secured: Service, sqlite_url: str) -> None:
    maya = pb.Subject(type=pb.SUBJECT_TYPE_USER, id="maya")

    def written(number: int) -> list[dpb.Mutation]:
        course, ref = f"c{number}", "r" * 250
        enrolled = pb.Membership(
            subject=maya, scope=pb.Scope(course_id=course), role="student", source_ref=ref
        )
        return [
            dpb.Mutation(operation=dpb.OPERATION_TOUCH, course=pb.Course(id=course)),
            dpb.Mutation(operation=dpb.OPERATION_TOUCH, membership=enrolled),
        ]

    async def messages() -> AsyncIterator[dpb.ImportRequest]:
        for start in range(0, COURSES, 500):
            mutations = [each for number in range(start, start + 500) for each in written(number)]
            yield dpb.ImportRequest(mutations=mutations)

    await secured.directory.Import(messages(), metadata=bearer(ISSUER.jwt("sync")))
    grant(sqlite_url, {"service:sync": "privacy_officer"})
    request = ppb.ExportSubjectRequest(subject=maya)
    async with asyncio.timeout(60):
        while True:  # until the server knows of the role
            export = secured.privacy.ExportSubject(request, metadata=bearer(ISSUER.jwt("sync")))
            with suppress(grpc.aio.AioRpcError):
                await export.read()
                break
            await asyncio.sleep(0.05)
        revoke(sqlite_url, "service:sync", "privacy_officer")
        await asyncio.sleep(2)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            while await export.read() is not grpc.aio.EOF:
                pass
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    # Part of the data has reached the caller.
    async with asyncio.timeout(20):
        while "service:sync" not in told_of(sqlite_url, "maya"):  # noqa: ASYNC110  the log is written later
            await asyncio.sleep(0.05)


@in_process
@pytest.mark.parametrize("freshness", ["at_least_as_fresh", "fully_consistent"])
async def test_a_check_is_refused_if_its_caller_lost_the_right_in_the_state_that_it_waits_for(
    secured: Service, sqlite_url: str, monkeypatch: pytest.MonkeyPatch, freshness: str
) -> None:
    grant(sqlite_url, {"service:asks": "checker"})
    caller, wait = bearer(ISSUER.jwt("asks")), ConsistencyGate._wait_for
    request = check_request("user:maya", "read", "course:algebra")
    async with asyncio.timeout(20):
        while True:  # until the server knows of the role
            with suppress(grpc.aio.AioRpcError):
                answer = await secured.authorization.Check(request, metadata=caller)
                break
            await asyncio.sleep(0.05)

    async def until_revoked(self: ConsistencyGate, least: ConsistencyToken, wait_until: float) -> bool:
        monkeypatch.setattr(ConsistencyGate, "_wait_for", wait)
        revoke(sqlite_url, "service:asks", "checker")
        assert await self.wait_beyond(least.revision, 20)
        return await wait(self, least, wait_until)

    monkeypatch.setattr(ConsistencyGate, "_wait_for", until_revoked)
    if freshness == "fully_consistent":
        request.consistency.fully_consistent = True
    else:
        request.consistency.at_least_as_fresh.CopyFrom(answer.checked_at)
    with pytest.raises(grpc.aio.AioRpcError, match=r"lost .*`check`.* during the call") as caught:
        await secured.authorization.Check(request, metadata=caller, timeout=20)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
