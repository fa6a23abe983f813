"""Many writers of one server at once: each gets its own answer, and a kill loses no write that has one."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc

from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from authz.v1 import directory_pb2_grpc
from tests.api.test_api import touch, written
from tests.service import Service, reason_of
from tests.serving import over_grpc, serving
from tests.store.directory import changes_of, open_with, replay, stored
from tests.tokens import state_of


async def test_sixteen_writers_and_an_import_all_get_their_answers(service: Service) -> None:
    async def work(writer: int) -> list[int]:
        tokens = [await written(service, touch(course=pb.Course(id=f"w{writer}-{n}"))) for n in range(5)]
        return [state_of(token.token).revision for token in tokens]

    messages = [
        dpb.ImportRequest(mutations=[touch(course=pb.Course(id=f"i{part}-{n}")) for n in range(50)])
        for part in range(4)
    ]
    imported, *given = await asyncio.gather(
        service.directory.Import(iter(messages)), *(work(writer) for writer in range(16))
    )
    assert (imported.written, imported.failed) == (200, 0)
    assert all(revisions == sorted(revisions) for revisions in given)
    revisions = [revision for each in given for revision in each]
    assert len(set(revisions)) == 80
    # The first revision is that of the first policy.
    assert set(revisions) <= set(range(2, 86))


async def test_of_writers_at_once_the_one_at_fault_fails_alone(service: Service) -> None:
    await written(service, touch(course=pb.Course(id="there")))
    there = dpb.Mutation(operation=dpb.OPERATION_CREATE, course=pb.Course(id="there"))
    outcomes = await asyncio.gather(
        *(written(service, there if n % 4 == 2 else touch(course=pb.Course(id=f"c{n}"))) for n in range(16)),
        return_exceptions=True,
    )
    faults = [each for each in outcomes if isinstance(each, grpc.aio.AioRpcError)]
    assert [isinstance(each, BaseException) for each in outcomes] == [n % 4 == 2 for n in range(16)]
    assert {reason_of(each) for each in faults} == {"ENTITY_EXISTS"}
    read = await service.directory.ReadCourses(dpb.ReadCoursesRequest())
    assert len(read.courses) == 13


@over_grpc
async def test_a_killed_server_has_what_it_acknowledged_to_many_writers(store_url: str) -> None:
    acknowledged: dict[str, int] = {}
    with serving(store_url) as (process, address):
        async with grpc.aio.insecure_channel(address) as channel:
            stub: Any = directory_pb2_grpc.DirectoryServiceStub(channel)

            async def work(writer: int) -> None:
                for number in range(100_000):
                    name = f"{writer}-{number}"
                    courses = [touch(course=pb.Course(id=f"{half}{name}")) for half in "ab"]
                    answer = await stub.Write(dpb.WriteRequest(mutations=courses))
                    token = state_of(answer.written_at.token)
                    acknowledged[name] = token.revision
                    if len(acknowledged) == 100:
                        process.kill()

            outcomes = await asyncio.gather(*map(work, range(16)), return_exceptions=True)
    assert all(isinstance(outcome, grpc.aio.AioRpcError) for outcome in outcomes)
    store = open_with(store_url)
    log = changes_of(store, 0, 100_000)
    held = {change.revision: {str(each.key) for each in change.mutations} for change in log}
    assert list(held) == list(range(1, len(log) + 1))
    for name, revision in acknowledged.items():
        assert held[revision] == {f"course:a{name}", f"course:b{name}"}
    assert replay(log) == stored(store)
    store.close()
