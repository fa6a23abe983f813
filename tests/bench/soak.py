"""Print the memory of a server through a million questions, most of them of ids that nobody knows."""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

import grpc
import psutil

from authz.client import check_request
from authz.v1 import authorization_pb2 as apb
from authz.v1 import authorization_pb2_grpc, directory_pb2_grpc
from authz.v1 import common_pb2 as pb
from authz.v1 import directory_pb2 as dpb
from tests.bench.campus import Campus
from tests.bench.measure import show
from tests.bench.serving import running
from tests.serving import AUTHZ

A_BATCH = 500
STEPS = 10


def question(campus: Campus, chance: random.Random) -> apb.CheckRequest:
    """One in four of ids that are there; the others made up, and each a new one."""
    if chance.random() < 0.25:
        ((user, action, notebook),) = campus.questions(1)
    else:
        user, action = f"user:x{chance.getrandbits(64):x}", chance.choice(["read", "update", "delete"])
        notebook = f"notebook:y{chance.getrandbits(64):x}"
    course_id, purpose = f"z{chance.getrandbits(32):x}", chance.choice(["", "train"])
    return check_request(user, action, notebook, course_id=course_id, purpose=purpose)


def main(questions: int) -> None:
    """Batches with single calls, lists of actions, reads and writes between them."""
    campus, chance = Campus(10_000), random.Random(1)
    with tempfile.TemporaryDirectory(prefix="authz-bench-") as folder:
        url = campus.fill_sqlite(Path(folder) / "bench.db")
        with (
            running([str(AUTHZ), "serve"], AUTHZ_DATABASE_URL=url) as (pid, address, _),
            grpc.insecure_channel(address) as channel,
        ):
            authorization = authorization_pb2_grpc.AuthorizationServiceStub(channel)
            directory = directory_pb2_grpc.DirectoryServiceStub(channel)
            server = psutil.Process(pid)
            for step in range(STEPS + 1):
                show(
                    f"{questions * step // STEPS:>10,} questions", f"{server.memory_info().rss / 1e6:.1f} MB"
                )
                for number in range(questions // STEPS // A_BATCH):
                    items = [question(campus, chance) for _ in range(A_BATCH)]
                    authorization.BatchCheck(apb.BatchCheckRequest(items=items))
                    authorization.Check(items[0])
                    asked = apb.ListActionsRequest(subject=items[1].subject, resource=items[1].resource)
                    authorization.ListActions(asked)
                    scope = pb.Scope(course_id=f"nowhere-{number}")
                    directory.ReadMemberships(dpb.ReadMembershipsRequest(scope=scope))
                    course = pb.Course(id="soak", ai_enabled=bool(number % 2))
                    touch = dpb.Mutation(operation=dpb.OPERATION_TOUCH, course=course)
                    directory.Write(dpb.WriteRequest(mutations=[touch]))


if __name__ == "__main__":
    main(int(sys.argv[1]) if sys.argv[1:] else 1_000_000)
