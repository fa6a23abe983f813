"""A revocation that is acknowledged is in effect in every process of the machine, whatever hangs there."""

from __future__ import annotations

import resource
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from authz.client import Client
from authz.domain.entities import Course
from authz.domain.mutations import Mutation, Operation
from authz.v1 import directory_pb2
from authz.wire.entities import mutation_message
from tests.faults.load import Stubs
from tests.faults.postgresql import Clusters
from tests.faults.processes import AUTHORIZATION, Node, running
from tests.faults.test_outage import allowed, answered, connected, refused, write
from tests.runtime.test_server import campus_of
from tests.runtime.test_supervise import follower
from tests.serving import over_grpc
from tests.store.directory import remove
from tests.waiting import suspend, until

pytestmark = over_grpc

NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def written(stubs: Stubs, *mutations: directory_pb2.Mutation) -> bool:
    """Write; whether the answer says that it is replicated."""
    request = directory_pb2.WriteRequest(mutations=mutations)
    return bool(stubs.directory.Write(request, timeout=15).replicated)


def revocation(number: int) -> directory_pb2.Mutation:
    """Take what `campus_of` gave Maya away."""
    membership = next(each.target for each in campus_of(number) if hasattr(each.target, "role"))
    return mutation_message(remove(membership.key))


def denied(stubs: Stubs, number: int) -> bool:
    """Whether Maya is denied what she once could read; false while nobody answers. No answer lets her in."""
    try:
        assert not allowed(stubs, number)
    except grpc.RpcError:
        return False
    return True


@pytest.mark.parametrize("end", ["resumed", "killed", "left alone"])
def test_no_worker_answers_from_before_a_revocation_while_the_follower_is_stopped(
    store_url: str, tmp_path: Path, end: str
) -> None:
    node = Node("one", store_url, tmp_path, AUTHZ_WORKERS="2", AUTHZ_MAX_STALENESS_S="600")
    with running(node), connected(node) as stubs:
        # A busy machine may follow later than the answer waits for.
        until(lambda: written(stubs, *map(mutation_message, campus_of(1))), "writes are not replicated")
        stopped = follower(node.workers())
        suspend(stopped)
        assert not written(stubs, revocation(1))
        failure = refused(lambda: allowed(stubs, 1))
        assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "TOO_STALE")
        node.await_health(AUTHORIZATION, NOT_SERVING)
        for _ in range(12):
            # A connection of its own, which any of the workers may get.
            with connected(node) as each:
                denied(each, 1)
        if end == "killed":
            stopped.kill()
        elif end == "resumed":
            stopped.resume()
        for _ in range(12):
            with connected(node) as each:
                until(lambda at=each: denied(at, 1), "checks are refused forever")  # type: ignore[misc]  # bound now
        until(lambda: written(stubs, *map(mutation_message, campus_of(2))), "writes are not replicated")


def test_a_write_that_no_replica_can_follow_since_the_database_is_away_is_not_acknowledged_and_checks_go_on(
    clusters: Clusters, tmp_path: Path
) -> None:
    cluster = clusters.migrated()
    node = Node("one", cluster.url, tmp_path, AUTHZ_WORKERS="2", AUTHZ_REPLICATION_TIMEOUT_S="3")
    with running(node), connected(node) as stubs:
        assert written(stubs, *map(mutation_message, campus_of(1)))
        stopped, revision = follower(node.workers()), cluster.revision()
        suspend(stopped)
        request = directory_pb2.WriteRequest(mutations=[revocation(1)], idempotency_key="revoke-maya")
        call = stubs.directory.Write.future(request, timeout=30)
        until(lambda: cluster.revision() > revision, "it is not committed")
        cluster.stop()
        failure = refused(call.result)
        assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
        stopped.resume()
        assert allowed(stubs, 1)
        cluster.start()
        until(lambda: answered(lambda: stubs.directory.Write(request, timeout=30)), "it is not answered")
        assert not allowed(stubs, 1)


def test_a_full_disk_of_the_replica_is_told_by_its_name_and_nothing_is_answered_from_before(
    sqlite_url: str, tmp_path: Path
) -> None:
    node = Node("one", sqlite_url, tmp_path, AUTHZ_WORKERS="2")
    with running(node), connected(node) as stubs:
        write(stubs, 1)
        (replica,) = node.replica.glob("*/data.mdb")
        limited, (_, hard) = follower(node.workers()).pid, resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.prlimit(limited, resource.RLIMIT_FSIZE, (replica.stat().st_size, hard))
        with Client(node.address) as client:
            client.import_mutations(Mutation(Operation.CREATE, Course(id=f"c{n}")) for n in range(2000))
        until(lambda: '"event":"replica full"' in node.log.read_text(), "the log does not say why")
        assert "the disk of AUTHZ_REPLICA_DIR is full" in node.log.read_text()
        assert "Traceback" not in node.log.read_text()
        with pytest.raises(grpc.RpcError, match="this machine has acknowledged revision"):
            allowed(stubs, 1)
        resource.prlimit(limited, resource.RLIMIT_FSIZE, (hard, hard))
        until(lambda: answered(lambda: allowed(stubs, 1)), "checks are not answered again")
        assert allowed(stubs, 1)
