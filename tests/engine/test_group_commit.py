"""Waiting writes are gathered: who shares a transaction, who fails with whom, and whose turn it is."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec
import pytest

from authz.domain.entities import Course, MembershipStatus
from authz.domain.errors import (
    AuthzError,
    ConflictError,
    ErrorReason,
    FailedPreconditionError,
    PermissionDeniedError,
    UnavailableError,
)
from authz.domain.mutations import ImportBatchResult, Mutation, Operation, WriteRequest
from authz.domain.origin import Origin
from authz.domain.tokens import ConsistencyToken
from authz.engine import group_commit
from authz.engine.group_commit import MAX_MUTATIONS_PER_GROUP, MAX_WRITES_PER_GROUP, GroupCommitter
from tests.store.directory import create, remove, student
from tests.store.directory import touch as touch_entity

REFUSED = FailedPreconditionError(ErrorReason.PRECONDITION_FAILED, "no")


def state(number: int) -> ConsistencyToken:
    """What the recorder answers when it has been asked so often."""
    return ConsistencyToken("recorder", number)


class Recorder:
    """A directory that writes down what it is asked, and waits at its first group until told to go on."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.fails: Callable[[str], Exception | None] = lambda name: None

    def write_group(self, requests: Sequence[WriteRequest]) -> list[ConsistencyToken | AuthzError]:
        """Answers each with how many were asked for before it."""
        names = [request.origin.reason for request in requests]
        self.calls.append(names)
        self.entered.set()
        assert self.go_on.wait(30)
        for name in names:
            error = self.fails(name)
            if error is not None:
                raise error
        return [REFUSED if name == "refused" else state(len(self.calls)) for name in names]

    def write(self, request: WriteRequest) -> ConsistencyToken:
        """A group of one."""
        (outcome,) = self.write_group([request])
        assert isinstance(outcome, ConsistencyToken)
        return outcome

    def import_batch(self) -> ImportBatchResult:
        """An empty batch."""
        self.calls.append("import")
        return ImportBatchResult(written=0, unchanged=0, faults=(), head=state(0))


@pytest.fixture
def recorder() -> Recorder:
    """Held until `go_on`."""
    return Recorder()


def committer(recorder: Recorder, *, commit_delay_s: float = 0.001) -> GroupCommitter:
    """Over the recorder; delays a group after four writes in progress."""
    return GroupCommitter(
        recorder,  # type: ignore[arg-type]  # only what writes is called
        commit_siblings=4,
        commit_delay_s=commit_delay_s,
    )


@pytest.fixture
async def writing(recorder: Recorder) -> AsyncIterator[GroupCommitter]:
    """Over the recorder."""
    writing = committer(recorder)
    yield writing
    recorder.go_on.set()
    await writing.close()


def request_of(name: str, mutations: int = 1) -> WriteRequest:
    """A write that is known by its reason."""
    return WriteRequest(mutations=(create(Course(id=name)),) * mutations, origin=Origin(reason=name))


async def held(writing: GroupCommitter, recorder: Recorder) -> asyncio.Task[ConsistencyToken]:
    """A first write, which has begun."""
    first = asyncio.create_task(writing.write(request_of("first")))
    await asyncio.to_thread(recorder.entered.wait, 30)
    return first


async def handed_over(
    writing: GroupCommitter, *requests: WriteRequest
) -> list[asyncio.Task[ConsistencyToken]]:
    """Writes that wait, in this order."""
    tasks = [asyncio.create_task(writing.write(request)) for request in requests]
    await asyncio.sleep(0)
    return tasks


async def test_what_waits_together_is_written_together(writing: GroupCommitter, recorder: Recorder) -> None:
    first = await held(writing, recorder)
    tasks = await handed_over(writing, *(request_of(name) for name in ("a", "refused", "c")))
    assert not any(task.done() for task in tasks)
    recorder.go_on.set()
    assert await first == state(1)
    assert await asyncio.gather(*tasks, return_exceptions=True) == [state(2), REFUSED, state(2)]
    assert recorder.calls == [["first"], ["a", "refused", "c"]]


async def test_a_group_is_bounded_by_its_writes_and_by_its_mutations(
    writing: GroupCommitter, recorder: Recorder
) -> None:
    first = await held(writing, recorder)
    many = [request_of(str(n)) for n in range(MAX_WRITES_PER_GROUP + 1)]
    large = [request_of(name, MAX_MUTATIONS_PER_GROUP) for name in ("x", "y")]
    tasks = await handed_over(writing, *many, *large)
    recorder.go_on.set()
    await asyncio.gather(first, *tasks)
    assert [len(group) for group in recorder.calls] == [1, MAX_WRITES_PER_GROUP, 1, 1, 1]
    assert [name for group in recorder.calls for name in group] == [
        "first",
        *(request.origin.reason for request in (*many, *large)),
    ]


async def test_a_write_that_waits_is_dropped_once_its_caller_may_no_longer_make_it(
    writing: GroupCommitter, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "CHECK_INTERVAL_S", 0)
    denied = PermissionDeniedError("no longer", permission="write_courses")
    checks = iter((False, False, True))

    async def require_permitted() -> None:
        if next(checks):
            raise denied

    first = await held(writing, recorder)
    with pytest.raises(PermissionDeniedError) as caught:
        await writing.write(request_of("second"), require_permitted)
    assert caught.value is denied
    third = await handed_over(writing, request_of("third"))
    recorder.go_on.set()
    await asyncio.gather(first, *third)
    assert recorder.calls == [["first"], ["third"]]


async def test_imports_and_groups_take_turns(writing: GroupCommitter, recorder: Recorder) -> None:
    first = await held(writing, recorder)
    imports = [asyncio.create_task(writing.run_batch(recorder.import_batch)) for _ in range(3)]
    tasks = await handed_over(writing, *(request_of("w", MAX_MUTATIONS_PER_GROUP) for _ in range(3)))
    recorder.go_on.set()
    await asyncio.gather(first, *imports, *tasks)
    assert recorder.calls == [["first"], "import", ["w"], "import", ["w"], "import", ["w"]]


@pytest.mark.parametrize(
    "error",
    [
        ConflictError("busy"),
        UnavailableError(ErrorReason.STORE_UNAVAILABLE, "away"),
    ],
)
async def test_a_database_that_is_busy_or_away_fails_the_whole_group(
    writing: GroupCommitter, recorder: Recorder, error: Exception
) -> None:
    first = await held(writing, recorder)
    tasks = await handed_over(writing, request_of("a"), request_of("b"))
    recorder.fails = lambda name: error if name == "b" else None
    recorder.go_on.set()
    await first
    assert await asyncio.gather(*tasks, return_exceptions=True) == [error, error]
    assert recorder.calls == [["first"], ["a", "b"]]


async def test_what_breaks_a_group_is_found_and_fails_alone(
    writing: GroupCommitter, recorder: Recorder
) -> None:
    first = await held(writing, recorder)
    tasks = await handed_over(writing, *(request_of(name) for name in "abc"))
    error = RuntimeError("b")
    recorder.fails = lambda name: error if name == "b" else None
    recorder.go_on.set()
    await first
    assert await asyncio.gather(*tasks, return_exceptions=True) == [state(3), error, state(5)]
    assert recorder.calls == [["first"], ["a", "b", "c"], ["a"], ["b"], ["c"]]


async def in_progress(writing: GroupCommitter, recorder: Recorder) -> list[asyncio.Task[ConsistencyToken]]:
    """Three writes that wait once a group of one was committed: four were in progress."""
    first = await held(writing, recorder)
    together = await handed_over(writing, *(request_of(name) for name in "abc"))
    recorder.go_on.set()
    await first
    return together


async def test_a_group_waits_until_as_many_write_as_before(recorder: Recorder) -> None:
    writing = committer(recorder, commit_delay_s=3600)
    together = await in_progress(writing, recorder)
    together += await handed_over(writing, request_of("d"))
    async with asyncio.timeout(30):
        assert await asyncio.gather(*together) == [state(2)] * 4
    assert recorder.calls == [["first"], list("abcd")]
    await writing.close()


async def test_a_group_does_not_wait_longer_than_the_delay(
    writing: GroupCommitter, recorder: Recorder
) -> None:
    together = await in_progress(writing, recorder)
    async with asyncio.timeout(30):
        assert await asyncio.gather(*together) == [state(2)] * 3


async def test_an_import_ends_the_wait_of_a_group(recorder: Recorder) -> None:
    writing = committer(recorder, commit_delay_s=3600)
    together = await in_progress(writing, recorder)
    async with asyncio.timeout(30):
        await writing.run_batch(recorder.import_batch)
        await asyncio.gather(*together)
    assert recorder.calls == [["first"], "import", list("abc")]
    await writing.close()


async def test_what_takes_access_away_does_not_wait_with_a_group(recorder: Recorder) -> None:
    writing = committer(recorder, commit_delay_s=3600)
    together = await in_progress(writing, recorder)
    async with asyncio.timeout(30):
        await writing.write(revocation("urgent"))
        await writing.write(request_of("d"))
        await asyncio.gather(*together)
    assert recorder.calls == [["first"], ["urgent"], list("abcd")]
    await writing.close()


async def test_more_writers_than_a_group_holds_wait_for_nobody(recorder: Recorder) -> None:
    writing = committer(recorder, commit_delay_s=3600)
    first = await held(writing, recorder)
    tasks = await handed_over(writing, *(request_of(str(n)) for n in range(2 * MAX_WRITES_PER_GROUP)))
    recorder.go_on.set()
    async with asyncio.timeout(30):
        await asyncio.gather(first, *tasks)
    await writing.close()


@pytest.mark.parametrize("together", [(), ("a", "b")], ids=["alone", "fewer than the siblings"])
async def test_without_enough_writes_in_progress_no_group_waits(
    recorder: Recorder, together: tuple[str, ...]
) -> None:
    writing = committer(recorder, commit_delay_s=3600)
    first = await held(writing, recorder)
    tasks = await handed_over(writing, *map(request_of, together))
    recorder.go_on.set()
    async with asyncio.timeout(30):
        await asyncio.gather(first, *tasks)
        await writing.write(request_of("next"))
    await writing.close()


async def test_no_group_waits_while_an_import_does(recorder: Recorder) -> None:
    writing = committer(recorder, commit_delay_s=3600)
    first = await held(writing, recorder)
    tasks = await handed_over(writing, *map(request_of, "abcd"))
    imported = asyncio.create_task(writing.run_batch(recorder.import_batch))
    await asyncio.sleep(0)
    recorder.go_on.set()
    async with asyncio.timeout(30):
        await asyncio.gather(first, imported, *tasks)
    assert recorder.calls == [["first"], "import", list("abcd")]


async def test_a_write_that_waits_goes_with_its_caller_and_one_that_has_begun_is_finished(
    writing: GroupCommitter, recorder: Recorder
) -> None:
    first = await held(writing, recorder)
    gone, stays = await handed_over(writing, request_of("gone"), request_of("stays"))
    left = asyncio.create_task(writing.run_batch(recorder.import_batch))
    await asyncio.sleep(0)
    for task in (first, gone, left):
        task.cancel()
    recorder.go_on.set()
    assert await stays == state(2)
    assert gone.cancelled()
    assert recorder.calls == [["first"], ["stays"]]


async def test_the_failure_of_a_write_whose_caller_has_gone_is_no_error_of_the_server(
    writing: GroupCommitter, recorder: Recorder
) -> None:
    async def require_permitted() -> None:
        pass

    logged: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context))
    recorder.fails = lambda name: ConflictError("busy")
    gone = asyncio.create_task(writing.write(request_of("first"), require_permitted))
    await asyncio.to_thread(recorder.entered.wait, 30)
    gone.cancel()
    await asyncio.wait((gone,))
    recorder.go_on.set()
    await writing.close()
    del gone
    gc.collect()
    assert recorder.calls == [["first"]]
    assert logged == []


def revocation(name: str) -> WriteRequest:
    """A write that only takes access away."""
    omar = student("omar", "c")
    suspended = msgspec.structs.replace(omar, status=MembershipStatus.SUSPENDED)
    update = Mutation(Operation.UPDATE, omar.key, (("suspended_until", 1),))
    return WriteRequest(
        mutations=(remove(omar.key), touch_entity(suspended), update), origin=Origin(reason=name)
    )


async def test_revocations_go_first_and_leave_turns_to_others(
    writing: GroupCommitter, recorder: Recorder
) -> None:
    first = await held(writing, recorder)
    imports = [asyncio.create_task(writing.run_batch(recorder.import_batch)) for _ in range(2)]
    waiting = await handed_over(writing, request_of("grant"), revocation("one"), revocation("two"))
    recorder.go_on.set()
    await asyncio.gather(first, *imports, *waiting)
    assert recorder.calls[:3] == [["first"], ["one", "two"], "import"]
    assert sorted(map(str, recorder.calls[3:])) == ["['grant']", "import"]


async def test_who_only_revokes_does_not_starve_who_grants(
    writing: GroupCommitter, recorder: Recorder
) -> None:
    first = await held(writing, recorder)
    revocations = [revocation(f"r{n}") for n in range(3 * MAX_WRITES_PER_GROUP)]
    waiting = await handed_over(writing, *revocations, request_of("grant"))
    recorder.go_on.set()
    await asyncio.gather(first, *waiting)
    assert recorder.calls[2] == ["grant"]


@pytest.mark.parametrize(
    "mutation",
    [
        create(student("omar", "c")),
        touch_entity(student("omar", "c")),
        Mutation(Operation.UPDATE, student("omar", "c").key, (("status", MembershipStatus.ACTIVE),)),
    ],
)
def test_a_write_that_gives_anything_is_no_revocation(mutation: Mutation) -> None:
    assert not WriteRequest(mutations=(*revocation("r").mutations, mutation)).takes_access_away


async def test_closing_finishes_what_was_handed_over(writing: GroupCommitter, recorder: Recorder) -> None:
    first = await held(writing, recorder)
    (later,) = await handed_over(writing, request_of("later"))
    recorder.go_on.set()
    await writing.close()
    assert [await first, await later] == [state(1), state(2)]
    with pytest.raises(UnavailableError):
        await writing.write(request_of("too late"))
